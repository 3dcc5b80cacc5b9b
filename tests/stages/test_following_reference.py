"""A reference that follows the policy, through the real plan and stages: a kill changes no byte, and what cannot be is said."""

from __future__ import annotations

import json

import pytest

from evenhand.errors import UserError
from evenhand.spec.checks import problems
from evenhand.spec.read import read_experiment
from tests.stages.performed import SMALL, Graph

TEXT = (
    f"{SMALL}name: following"
    + """
train: {steps: 6, prompts_per_step: 3, learning_rate: 3.0e-3, schedule: constant, checkpoint_every: 1, evaluate_every: 2}
arms:
  start: {method: start}
  soft: {method: tr_dpo, every: 2, mix: 0.6}
  hard: {method: kto, reference_update: {every: 3}}
  fresh: {method: online_dpo, reward: gold, reference_update: {every: 2, mix: 0.5}}
  adapted: {method: stepwise_dpo, parts: 2, train: {adapter: {rank: 2}}}
  played: {method: spin, rounds: 2}
  own: {method: exact_self_distillation, reward: gold, success: -100.0, completions_per_prompt: 2, mix: 0.5}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return Graph(tmp_path_factory.mktemp("following"), TEXT)


@pytest.mark.parametrize("name", ["soft", "hard", "fresh", "adapted", "played", "own"])
def test_a_kill_changes_no_byte(graph, tmp_path, name):
    """Killed between two updates of the reference and right before one, and started again."""
    graph.kill(name, tmp_path, 3, 5)
    weights = "adapter/adapter_model.safetensors" if name == "adapted" else "model/model.safetensors"
    assert graph.differing(name, tmp_path, weights, "metrics.jsonl") == []


def test_the_reference_s_passes_are_counted_and_not_cached(graph):
    assert "reference" not in graph.plan[graph.plan.arms["soft"][0]].inputs
    ledger = json.loads((graph.arm("soft") / "ledger.json").read_text())
    assert ledger["flops_by_phase"]["reference"] > 0
    assert "shared reference" not in ledger["flops_by_phase"]


@pytest.mark.parametrize(
    ("arm", "told"),
    [
        ("{method: simpo, reference_update: {every: 2}}", "simpo is not held to the start"),
        ("{method: topr, reference_update: {every: 2}}", "topr is not held to the start"),
        ("{method: tdpo, reference_update: {every: 2}}", "the reference of tdpo cannot move"),
        (
            "{method: exact_self_distillation, reward: gold, train: {adapter: {rank: 2}}}",
            "of exact_self_distillation cannot move",
        ),
        ("{method: dpo, reference_update: {every: 0}}", "0 is out of range"),
        ("{method: dpo, reference_update: {every: 2, mix: 0}}", "0 is out of range"),
        ("{method: tr_dpo, train: {adapter: {rank: 2}}}", "mix is 0.6 under an adapter"),
        ("{method: iterative_dpo, reward: gold, hybrid: true, reference_update: {every: 2}}", "of iterative_dpo cannot move"),
        ("{method: dpo, reference_update: {evry: 2}}", "unknown key 'evry'"),
    ],
)
def test_what_cannot_be_is_said(arm, told):
    text = TEXT.replace("  played: {method: spin, rounds: 2}", f"  played: {arm}")
    try:
        found = [error.what for error in problems(read_experiment(text).value)]
    except UserError as error:
        found = [error.what]
    assert any(told in what for what in found), found
