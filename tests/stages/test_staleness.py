"""Arms whose rollouts are stale, through the real plan and stages: a kill changes no byte, and what cannot be is said."""

from __future__ import annotations

import json

import pytest

from evenhand.errors import UserError
from evenhand.plan.plan import build
from evenhand.spec.checks import problems
from evenhand.spec.read import read_experiment
from tests.conftest import ROOT
from tests.stages.performed import SMALL, Graph

TEXT = (
    f"{SMALL}name: stale"
    + """
train: {steps: 6, prompts_per_step: 3, learning_rate: 3.0e-3, schedule: constant, checkpoint_every: 1}
arms:
  start: {method: start}
  plain: {method: grpo, reward: gold, completions_per_prompt: 2}
  zero: {method: grpo, reward: gold, completions_per_prompt: 2, staleness: {steps: 0}}
  late: {method: grpo, reward: gold, completions_per_prompt: 2, importance: 2, staleness: {steps: 2}}
  again: {method: ppo, reward: gold, completions_per_prompt: 2, updates: 2, epochs: 1, staleness: {steps: 3, proximal: generator}}
  rounds: {method: iterative_dpo, reward: gold, completions_per_prompt: 4, partner: previous, staleness: {steps: 1}}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return Graph(tmp_path_factory.mktemp("stale"), TEXT)


@pytest.mark.parametrize("name", ["late", "again", "rounds"])
def test_a_kill_changes_no_byte(graph, tmp_path, name):
    """Killed with rollouts in flight, twice, and started again."""
    graph.kill(name, tmp_path, 2, 5)
    assert graph.differing(name, tmp_path, "model/model.safetensors", "metrics.jsonl") == []


def test_no_more_is_sampled_than_is_trained_on(graph):
    """Six steps of three prompts with two answers each, however early they were sampled."""
    calls = [json.loads((graph.arm(name) / "ledger.json").read_text())["reward_calls"] for name in ("plain", "late", "again")]
    assert calls == [36, 36, 36]


def test_on_policy_is_one_thing_however_it_is_written(graph):
    nodes = {name: graph.plan[graph.plan.arms[name][0]] for name in ("plain", "zero", "late")}
    assert nodes["plain"].key == nodes["zero"].key != nodes["late"].key


@pytest.mark.parametrize(
    ("arm", "told"),
    [
        ("{method: dpo, staleness: {steps: 2}}", "dpo samples nothing"),
        ("{method: grpo, reward: gold, staleness: {steps: -1}}", "-1 is out of range"),
        ("{method: grpo, reward: gold, staleness: {steps: 0, proximal: generator}}", "`proximal` has no effect here"),
        ("{method: grpo, reward: gold, staleness: 2}", "2 is no mapping of keys to values"),
        ("{method: grpo, reward: gold, staleness: {steps: 2, proximal: start}}", "proximal"),
        ("{method: rloo, reward: gold, staleness: {steps: 2, proximal: generator}}", "rloo has no clip with these settings"),
        ("{method: grpo, reward: gold, importance: 2, staleness: {steps: 2, proximal: generator}}", "and `importance`"),
        ("{method: vapo, reward: gold, importance: 2, staleness: {steps: 2, proximal: generator}}", "and `importance`"),
        ("{method: ppo, reward: gold, importance: 0, staleness: {steps: 2, proximal: generator}}", ""),
        ("{method: spin, staleness: {steps: 2}}", "the reference of spin is the policy that sampled"),
        ("{method: iterative_dpo, reward: gold, initialise: start, staleness: {steps: 2}}", "every round starts anew"),
        (
            "{method: luffy, reward: gold, staleness: {steps: 2, proximal: generator}}",
            "not every answer of luffy has a generator",
        ),
    ],
)
def test_what_cannot_be_is_said(arm, told):
    text = TEXT[: TEXT.index("  late:")] + f"  asked: {arm}\n" + TEXT[TEXT.index("evaluation:") :]
    try:
        found = [error.what + str(error.where) for error in problems(read_experiment(text).value)]
    except UserError as error:
        found = [str(error)]
    assert any(told in what for what in found) if told else not found, found


def test_the_example_compares_ages_with_and_without_correction():
    experiment = read_experiment(ROOT / "examples" / "staleness.yaml").value
    asked = {name: (arm.staleness.steps if arm.staleness else 0, arm.parameters.get("importance", 0.0) > 0)
             for name, arm in experiment.all_arms().items() if arm.method == "grpo"}  # fmt: skip
    assert {(0, False), (1, False), (4, False), (16, False), (16, True)} <= set(asked.values())
    assert set(build(experiment).verdicts) == set(experiment.arms)
