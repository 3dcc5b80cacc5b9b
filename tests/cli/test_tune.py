"""`evenhand tune` on the command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from evenhand.cli import app
from evenhand.cli.tune import remarks
from evenhand.results.tuning_record import TrialRecord, TunedArmRecord


def invoke(*arguments):
    return CliRunner().invoke(app, ["tune", *arguments], catch_exceptions=False)


def test_a_plan_shows_the_trials_and_runs_nothing(tmp_path):
    found = invoke("quickstart", "tune.trials=4", "--plan", "--out", str(tmp_path / "out"))
    assert found.exit_code == 0
    assert "4 trials for each of 3 arms, by win rate over the baseline" in found.output
    assert "3 to 4" in found.output, "half of them are drawn, the others depend on what those give"
    assert "0 cached" in found.output
    assert "1200 answers to validation prompts" in found.output, "4 trials x 3 arms x 100 prompts"
    assert "known to about ±10 points" in found.output, "Wilson's interval of 50 wins in 100"
    assert "Not tuned: sft, because it is not trained." in found.output
    assert not (tmp_path / "out").exists()


def test_a_remark_for_every_doubt():
    trials = (
        TrialRecord(trial=1, settings={}, status="done"),
        TrialRecord(trial=3, settings={}, status="failed", error="inf"),
    )
    arm = TunedArmRecord(
        method="dpo", space={}, space_in_words={}, given={}, given_tried=False, alike=(1, 4),
        edges=("beta = 1 is at the upper end",), trials=trials,
    )  # fmt: skip
    assert remarks(arm) == [
        "the best 3 trials cannot be told apart",
        "beta = 1 is at the upper end: a wider space may hold a better one",
        "trial 3 failed; the first: inf",
    ]


TINY = """
extends: quickstart
name: tiny
seeds: [0]
data: {sizes: {demonstrations: 40, preferences: 40, prompts: 40, heldout_preferences: 10}}
model: {pretrain: {documents: 60}}
sft: {train: {epochs: 1}}
train: {steps: 2, prompts_per_step: 4, sample_every: 0}
arms:
  dpo: {train: {steps: 2, prompts_per_step: 4}}
  rloo: {method: ipo}
  grpo: {method: start}
evaluation: {prompts: 8}
judge: {self_test: 0}
lengths: {completion: 12}
tune: {trials: 2, prompts: 8, sampler: random}
"""


@pytest.mark.slow
def test_from_a_file_to_a_tuned_comparison(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENHAND_STORE", str(tmp_path / "store"))
    (tmp_path / "tiny.yaml").write_text(TINY)
    found = invoke("tiny.yaml", "--out", "out", "--unchecked", "--workers", "0", "-q")
    assert found.exit_code == 0, found.output
    run = CliRunner().invoke(app, ["run", "out/tuned.yaml", "--out", "run", "--unchecked", "--workers", "0", "-q"])
    assert run.exit_code == 0, run.output
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["tuning"]["shared_prompts"] == 0
    assert any(text.startswith("Every trained arm was tuned before: 2 trials each") for text in results["held_equal"])
    assert "How each arm was tuned" in (tmp_path / "run" / "report.html").read_text()
