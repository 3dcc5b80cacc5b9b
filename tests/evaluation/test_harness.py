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


@needs
@pytest.mark.slow
def test_a_model_folder_on_a_local_task(task, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from evenhand.models.load import new_policy, save
    from evenhand.worlds.tokenizer import word_tokenizer

    tokenizer = word_tokenizer(["Is even? yes no", " Is even? yes no"])
    shape = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 1, "max_position_embeddings": 64}  # fmt: skip
    save(new_policy(shape, tokenizer, seed=0, device="cpu"), tokenizer, tmp_path / "model")
    row = harness.run_tasks(tmp_path / "model", ["even_local"], include=task, device="cpu", limit=4)["even_local"]
    assert (row["n"], row["backend"]) == (4, "hf")
    assert set(row["items"]) <= {0.0, 1.0}
    with pytest.raises(UserError, match="did you mean 'even_local'"):
        harness.run_tasks(tmp_path / "model", ["even_locl"], include=task, device="cpu")


@needs
@pytest.mark.slow
def test_the_names_of_papers_are_tasks_of_the_harness():
    names = [t for n in ("gsm8k", "mmlu", "humaneval", "truthfulqa", "arc", "mbpp", "ifeval") for t in harness.SHORT.get(n, (n,))]
    assert len(names) == 8
    assert set(names) <= harness.SHOTS.keys() & harness.PRIMARY.keys()
    assert set(names) <= set(harness._manager(names, None).all_tasks)
    with pytest.raises(UserError, match="did you mean 'gsm8k'"):
        harness._manager(["gsm8"], None)


GROUP = """
group: {name}
task: [even_local, even_twin]
aggregate_metric_list: [{{metric: acc, aggregation: mean, weight_by_size: true}}]
metadata: {{version: 1}}
"""


@needs
def test_a_group_has_the_items_of_all_its_tasks(task, tmp_path, monkeypatch):
    """As mmlu: one number, every item of its tasks, and one flat line for a leaderboard."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from lm_eval.models.dummy import DummyLM

    from evenhand.evaluation.readers import merge_jsonl, read_rows

    twin = (task / "even.yaml").read_text().replace("even_local", "even_twin")
    (task / "twin.yaml").write_text(twin)
    (task / "group.yaml").write_text(GROUP.format(name="even_group"))
    found = harness.run_tasks(DummyLM(), ["even_group"], include=task, backend="dummy", shots=0)
    row = found["even_group"]
    assert (row["metric"], row["n"], row["shots"], len(row["items"])) == ("acc,none", 24, 0, 24)
    assert row["value"] == pytest.approx(sum(row["items"]) / 24)
    lines = harness.leaderboard_lines("a", found)
    merge_jsonl(tmp_path / "lb.jsonl", lines, ("model", "task"))
    merge_jsonl(tmp_path / "lb.jsonl", [{**lines[0], "model": "b"}], ("model", "task"))
    merge_jsonl(tmp_path / "lb.jsonl", [{**lines[0], "value": 0.25}], ("model", "task"))
    rows = read_rows(tmp_path / "lb.jsonl")
    assert [(r["model"], r["value"]) for r in rows] == [("a", 0.25), ("b", row["value"])]


@needs
def test_missing_data_and_packages_are_the_users_to_mend(monkeypatch):
    """What the library raises without a connection or an extra of its own."""
    import lm_eval

    def fails(error):
        def call(**arguments):
            raise error

        monkeypatch.setattr(lm_eval, "simple_evaluate", call)

    fails(ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub"))
    with pytest.raises(UserError, match="--include FOLDER"):
        harness._evaluated("gsm8k", tasks=["gsm8k"])
    fails(ModuleNotFoundError("No module named 'langdetect'", name="langdetect"))
    with pytest.raises(UserError, match=r"needs the package 'langdetect'[\s\S]*lm_eval\[ifeval\]"):
        harness._evaluated("ifeval", tasks=["ifeval"])
