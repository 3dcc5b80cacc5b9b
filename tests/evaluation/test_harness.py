"""The adapter to lm-evaluation-harness, with its dummy model and a local task file: no network."""

from __future__ import annotations

import json

import pytest

from evenhand.errors import UserError
from evenhand.evaluation import harness

needs = pytest.mark.skipif(not harness.available(), reason="needs lm_eval")
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
doc_to_choice: ["yes", "no"]
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 3}}
"""


@pytest.fixture
def task(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"question": f"Is {i} even?", "answer": i % 2}) + "\n" for i in range(12)))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "even.yaml").write_text(TASK.format(name="even_local", data=data))
    return tmp_path / "tasks"


@needs
def test_a_local_task_with_the_dummy_model(task, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from lm_eval.models.dummy import DummyLM

    ((name, row),) = harness.run_tasks(DummyLM(), ["even_local"], include=task, backend="dummy").items()
    assert name == "even_local"
    assert (row["metric"], row["n"], row["shots"], row["task_version"]) == ("acc,none", 12, 0, 3)
    assert len(row["items"]) == 12
    assert row["value"] == pytest.approx(sum(row["items"]) / 12)
    assert row["stderr"] == pytest.approx((row["value"] * (1 - row["value"]) / 11) ** 0.5)
    assert row["backend"] == "dummy"


@needs
def test_code_is_not_run_unasked():
    with pytest.raises(UserError, match="runs code that a model wrote"):
        harness.run_tasks(None, ["humaneval_instruct"])


def test_without_the_library_the_fix_is_named(monkeypatch):
    monkeypatch.setattr(harness, "available", lambda: False)
    with pytest.raises(UserError, match="pip install"):
        harness.run_tasks(None, ["gsm8k"])
