"""Training that goes wrong, in the real stage: what is said, what is kept, what ends, and that a kill changes nothing of it."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from evenhand import methods
from evenhand.errors import UserError
from evenhand.plan import plan
from evenhand.results.record import ArmResult
from evenhand.results.record_parts import EarlyEnd, Fired
from evenhand.results.training_warnings import by_rule, early_ends, remarks
from evenhand.spec.read import read_experiment
from evenhand.stages import monitoring
from evenhand.store.fingerprint import decisive
from evenhand.train.monitor import Remark
from evenhand.train.nonfinite import LOSS
from evenhand.types import Term, Terms
from tests.stages.performed import SMALL, Graph

EXPERIMENT = (
    f"{SMALL}name: ill"
    + """
train: {steps: 7, prompts_per_step: 3, learning_rate: 3.0e-3, schedule: constant, checkpoint_every: 2, sample_every: 2}
arms:
  start: {method: start}
  sound: {method: dpo}
  wild: {method: dpo, train: {learning_rate: 1.0e+14, clip: 1.0e+9}}
  cut: {method: rloo, reward: gold, completions_per_prompt: 2}
  ended: {method: rloo, reward: gold, completions_per_prompt: 2, train: {stop_when: {truncated: 0.4, kl: 1000}}}
  wild_online: {method: rloo, reward: gold, completions_per_prompt: 2, updates: 2, train: {learning_rate: 1.0e+14}}
  best: {method: rloo, reward: gold, completions_per_prompt: 2, train: {keep_checkpoint: best, validation_prompts: 6,
    validate_every: 5, stop_when: {truncated: 0.4}}}
  wrong: {method: dpo, train: {stop_when: {kl: 1}}}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Graph:
    return Graph(tmp_path_factory.mktemp("ill"), EXPERIMENT)


def rows(out) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_learning_rate_far_too_high_ends_with_one_message(graph, tmp_path):
    """The first step is finite; after it the weights are not usable, and the second ends before they move again."""
    with pytest.raises(UserError) as error:
        graph.run("arms/wild/seed-0", tmp_path)
    text = str(error.value)
    assert text.startswith("dpo, seed 0, step 2 of 7: the ")
    assert "training ended before the weights were moved" in text
    assert "train.learning_rate 1e+14, the method's default is 5e-07; clip 1e+09; weights in float32" in text
    assert "lower train.learning_rate (try 5e-07), and set train.clip (1 is usual)" in text
    assert str(tmp_path / "metrics.jsonl") in text
    assert [row["step"] for row in rows(tmp_path)] == [1]
    assert not (tmp_path / "model").exists()
    kept = load_file(tmp_path / "last_good" / "model.safetensors")
    assert max(float(t.abs().max()) for t in kept.values()) > 1e13, "these are the weights after the step of 1e14"
    assert all(bool(t.isfinite().all()) for t in kept.values())


def test_a_rollout_that_diverges_names_its_rewards(graph, tmp_path):
    """The second update on the first rollout: after it nothing could be sampled, which has a message of its own."""
    with pytest.raises(UserError) as error:
        graph.run("arms/wild_online/seed-0", tmp_path)
    assert error.value.where == "rloo, seed 0, step 2 of 7"
    assert re.search(r"largest finite advantage [0-9.]+; .*rewards from -?[0-9.]+ to -?[0-9.]+\)", error.value.why)


class Overflowing:
    """DPO with the value of its first row turned into NaN from the third step on."""

    def __init__(self, inner, calls):
        self.inner, self.calls = inner, calls
        self.reads, self.needs, self.denominators = inner.reads, inner.needs, inner.denominators

    def __call__(self, out, batch):
        self.calls.append(1)
        found = self.inner(out, batch)
        (term,) = found.terms
        factor = term.value.new_ones(len(term.value))
        factor[0] = math.nan if len(self.calls) > 2 else 1.0
        return Terms((Term(term.name, term.value * factor, term.weight),), found.metrics)


def test_a_loss_that_is_not_a_number_names_its_row_and_leaves_the_checkpoint(graph, tmp_path, monkeypatch):
    graph.arm("sound")  # and what it starts from
    sound, calls = methods.build, []

    def build(*args, **named):
        method = sound(*args, **named)
        return replace(method, objective=Overflowing(method.objective, calls))

    monkeypatch.setattr(methods, "build", build)
    with pytest.raises(UserError) as error:
        graph.run("arms/sound/seed-0", tmp_path)
    assert error.value.where == "dpo, seed 0, step 3 of 7"
    assert error.value.what.startswith("the loss is nan")
    assert LOSS in error.value.why
    found = re.search(r"in micro-batch 1 of 1, row 1, prompt ([0-9a-f]{16}) ending '(.*)' \(", error.value.why)
    assert found is not None
    data = [json.loads(line) for line in (graph.done["data"] / "preferences.jsonl").read_text().splitlines()]
    assert found[1] in {row["id"] for row in data}
    assert found[2].endswith("<|assistant|>")
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000002"]
    checkpointed = load_file(tmp_path / "checkpoint-00000002" / "model.safetensors")
    kept = load_file(tmp_path / "last_good" / "model.safetensors")
    assert all(bool((checkpointed[f"model.hf.{name}"] == t).all()) for name, t in kept.items()), "step 2 was the last good one"
    monkeypatch.undo()
    graph.run("arms/sound/seed-0", tmp_path)  # the fault is gone: it goes on from there
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]
    assert not (tmp_path / "last_good").exists()


def test_a_sound_run_says_nothing_and_writes_that(graph):
    out = graph.arm("sound")
    assert json.loads((out / "warnings.json").read_text()) == []
    assert not (out / "stopped.json").exists()
    assert all("/" not in name or name.startswith("heldout/") for row in rows(out) for name in row), "nothing watched is logged"


def test_answers_that_are_all_cut_are_said_where_they_began(graph, tmp_path, caplog):
    out = graph.run("arms/cut/seed-0", tmp_path)
    said = json.loads((out / "warnings.json").read_text())
    assert [(r["rule"], r["step"], r["limit"]) for r in said if r["rule"] == "truncated"] == [("truncated", 3, 0.5)]
    assert sum("cut at the token limit" in record.message for record in caplog.records) == 1
    assert [row["step"] for row in rows(out)] == [1, 2, 3, 4, 5, 6, 7], "a remark ends nothing"


def test_remarks_of_a_run_from_before_there_were_any_come_from_its_metrics(graph, tmp_path):
    out = graph.arm("cut")
    for name in ("metrics.jsonl", "samples.jsonl"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    named = lambda found: [(r.rule, r.step, r.value) for r in found if r.rule != "duplicates"]  # noqa: E731
    spec = graph.plan["arms/cut/seed-0"].spec
    assert named(remarks(tmp_path, spec)) == named(remarks(out, spec)) != []


def test_a_flat_group_is_remarked_upon_only_where_answers_are_compared_within_it():
    built = {name: methods.build(name, {}, steps=6, max_tokens=8) for name in methods.METHODS}
    across = {name for name, method in built.items() if monitoring.silent(method)}
    assert {"ppo", "reinforce", "topr_online"} <= across
    assert not across & {"grpo", "rloo", "rank_advantage", "dapo", "raft", "online_dpo", "dpo", "sft"}


def test_a_limit_ends_training_with_the_weights_of_its_step(graph):
    """Until then the run is the one without the limit."""
    ended, whole = graph.arm("ended"), graph.arm("cut")
    assert rows(ended) == rows(whole)[:3]
    stopped = json.loads((ended / "stopped.json").read_text())
    assert (stopped["rule"], stopped["step"], stopped["of"], stopped["limit"]) == ("truncated", 3, 7, 0.4)
    assert (ended / "model" / "model.safetensors").exists()
    row = ArmResult(stopped={"0": EarlyEnd(**stopped)})
    assert early_ends({"a": ArmResult(), "ended": row}) == [
        f"training of ended, seed 0, stopped at step 3 of 7 because {stopped['sentence']}"
    ]


def test_the_best_weights_are_measured_where_training_ends(graph):
    """Validation was due at step 5 first, and training ends at step 3."""
    points = json.loads((graph.arm("best") / "selection.json").read_text())["points"]
    assert [p["step"] for p in points] == [3]


@pytest.mark.parametrize("name", ["ended", "best"])
def test_a_kill_changes_no_byte_of_a_run_that_a_limit_ends(graph, tmp_path, name):
    graph.kill(name, tmp_path, 1, 2, 3)
    files = ["model/model.safetensors", "metrics.jsonl", "samples.jsonl", "warnings.json", "stopped.json"]
    assert graph.differing(name, tmp_path, *files) == []


def test_a_limit_that_cannot_apply_is_said(graph, caplog):
    graph.arm("wrong")
    assert [r.message for r in caplog.records if "stop_when.kl never applied" in r.message] != []


def test_a_stage_is_named_by_its_limits_only_where_it_has_some(graph):
    specs = {name: decisive(graph.plan[graph.plan.arms[name][0]].spec.train) for name in ("sound", "ended")}
    assert "stop_when" not in specs["sound"]
    assert specs["ended"]["stop_when"] == {"truncated": 0.4, "kl": 1000}


def test_a_limit_must_name_a_rule():
    given = EXPERIMENT.replace("{kl: 1}", "{kll: 1}")
    with pytest.raises(UserError, match=r"arms.wrong.train.stop_when.kll.*unknown limit 'kll'\n  fix: did you mean 'kl'"):
        plan.build(read_experiment(given).value)


def test_one_entry_per_rule_with_every_seed():
    words = dict.fromkeys(("sentence", "measures", "means", "normal", "fix"), "")
    kl = [Remark(rule="kl", step=step, value=value, limit=50.0, **words) for step, value in ((3, 60.0), (9, 51.0))]
    found = by_rule({"0": [kl[0]], "2": [kl[1]]})
    assert [entry.seeds for entry in found] == [{"0": Fired(step=3, value=60.0), "2": Fired(step=9, value=51.0)}]


RUN = (
    f"{SMALL}name: ill"
    + """
seeds: [0]
train: {steps: 4, prompts_per_step: 3, learning_rate: 3.0e-3, schedule: constant}
arms:
  start: {method: start}
  wild: {method: dpo, train: {learning_rate: 1.0e+14}}
  ended: {method: rloo, reward: gold, completions_per_prompt: 2, train: {stop_when: {truncated: 0.4}}}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)


@pytest.mark.slow
def test_the_command_says_it_the_results_hold_it_and_the_page_shows_it(tmp_path):
    (tmp_path / "ill.yaml").write_text(RUN)
    command = [sys.executable, "-m", "evenhand.cli", "run", "ill.yaml", "--out", "out", "--unchecked"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=quiet, timeout=3000)
    assert done.returncode == 3, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    reason = "dpo, seed 0, step 2 of 4: the "
    assert f"arms/wild/seed-0: {reason}" in done.stderr
    assert done.stderr.count("training stopped at step 3 because ") == 1
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    failures = {entry["node"]: entry["error"] for entry in results["failed"]}
    assert failures["arms/wild/seed-0"].startswith(reason)
    assert results["arms"]["ended"]["win_rate"] is not None, "the other cells went on"
    assert results["arms"]["ended"]["stopped"]["0"]["step"] == 3
    (warning,) = [w for w in results["arms"]["ended"]["warnings"] if w["rule"] == "truncated"]
    assert warning["seeds"]["0"]["step"] == 3
    assert any(text.startswith("training of ended, seed 0, stopped at step 3 of 4 because ") for text in results["deviations"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert reason in page
    assert "Said while training" in page
    assert "seed 0: stopped at step 3 of 4 because" in page
