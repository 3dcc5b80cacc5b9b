"""Answers of the data and of a mixture in rollouts, gold answers, single ratings: through the real plan and stages."""

from __future__ import annotations

import json

import pytest

from tests.stages.performed import SMALL, Graph

TEXT = (
    f"{SMALL}name: mixed"
    + """
train: {steps: 2, prompts_per_step: 3, learning_rate: 1.0e-3, schedule: constant, checkpoint_every: 1}
arms:
  start: {method: start}
  nash_md: {method: nash_md, reward: gold, completions_per_prompt: 4}
  luffy: {method: luffy, reward: gold, completions_per_prompt: 3}
  renewed: {method: ppo, reward: gold, completions_per_prompt: 2, updates: 2, epochs: 1, renew: 1, importance: 1.0e+9}
  dro: {method: dro}
  tpo: {method: tpo}
  dft: {method: dft}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)
SAMPLED = {"nash_md": 4, "luffy": 3, "renewed": 2}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return Graph(tmp_path_factory.mktemp("mixed"), TEXT)


@pytest.mark.parametrize("name", ["nash_md", "luffy", "renewed", "dro", "tpo", "dft"])
def test_an_arm_trains(graph, name):
    out = graph.arm(name)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    ledger = json.loads((out / "ledger.json").read_text())
    assert [row["step"] for row in rows] == [1, 2]
    assert any(row["grad_norm"] > 0 for row in rows)
    assert ledger["reward_calls"] == 6 * SAMPLED.get(name, 0)
    assert (ledger["tokens_generated"] > 0) == (name in SAMPLED)


def test_the_data_s_own_answers_cost_no_sampling(graph):
    """Of three answers to each prompt two are sampled: at most 8 tokens each."""
    ledger = json.loads((graph.arm("luffy") / "ledger.json").read_text())
    assert 0 < ledger["tokens_generated"] <= 6 * 2 * 8
