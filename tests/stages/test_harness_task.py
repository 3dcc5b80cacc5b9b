"""A task of lm-evaluation-harness beside the comparison, run for real on local files; skipped where the package is not here."""

from __future__ import annotations

import json

import pytest

from evenhand.evaluation import harness
from evenhand.results.files import load
from evenhand.run_experiment import execute, prepare
from evenhand.stats.twoway import paired_difference, win_rate
from tests.evaluation.test_harness import TASK
from tests.stages.test_over_training import GIVEN

pytestmark = pytest.mark.skipif(not harness.available(), reason="needs lm_eval")


def test_arms_are_compared_on_the_items_of_a_task(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"question": f"Is {i} even?", "answer": i % 2}) + "\n" for i in range(12)))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "even.yaml").write_text(TASK.format(name="even_local", data=data))
    arms = {"sft": {"method": "start"}, "dpo": {"method": "dpo"}}
    evaluations = {"even": {"task": "even_local", "include": str(tmp_path / "tasks"), "count": 9}}
    given = {**GIVEN, "arms": arms, "evaluation": {"prompts": 6, "frontier": False}, "evaluations": evaluations}
    prepared = prepare(given, out=tmp_path / "run")
    outcome, _ = execute(prepared, workers=0)
    assert outcome.ok, outcome.errors
    found = load(tmp_path / "run").evaluations["even"]
    assert (found.measure, found.judge, found.n_prompts) == ("acc,none", None, 9)
    planned = prepared.plan.evaluations["even"].verdicts
    items = {
        arm: json.loads((prepared.store.path(prepared.plan[nodes[0]].key) / "verdicts.json").read_text())["outcome"]
        for arm, nodes in planned.items()
    }
    assert {len(own) for own in items.values()} == {9}
    for arm, own in items.items():
        assert set(own) <= {0.0, 1.0}
        assert found.arms[arm].rate == pytest.approx(sum(own) / 9)
        assert found.arms[arm].ci95 == pytest.approx(win_rate(own).ci95)
    assert found.arms["dpo"].difference == pytest.approx(paired_difference(items["dpo"], items["sft"]).estimate)
