"""An implicit process reward model through the real plan and stages: PPO learns from what tokens earn, RLOO from their sum."""

from __future__ import annotations

import json

import pytest

from evenhand.stages.common import open_model_reward
from evenhand.stages.setup import Compute, Setup
from evenhand.train.config import Lengths
from tests.stages.performed import SMALL, Graph

TEXT = (
    f"{SMALL}name: processed"
    + """
reward_models:
  steps: {method: implicit_process_reward, train: {steps: 3, prompts_per_step: 6, learning_rate: 1.0e-3}}
train: {steps: 2, prompts_per_step: 3, learning_rate: 1.0e-3, schedule: constant}
arms:
  start: {method: start}
  ppo: {method: ppo, reward: steps, completions_per_prompt: 2, updates: 1, epochs: 1}
  rloo: {method: rloo, reward: steps, completions_per_prompt: 2}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)


def test_arms_learn_from_it_and_it_knows_its_reference(tmp_path):
    graph = Graph(tmp_path, TEXT)
    for name in ("ppo", "rloo"):
        rows = [json.loads(line) for line in (graph.arm(name) / "metrics.jsonl").read_text().splitlines()]
        assert all(row["reward"] == pytest.approx(0.05 * (row["reward/logp"] - row["reward/ref_logp"]), abs=1e-4) for row in rows)
        assert rows[0]["grad_norm"] > 0
    node = graph.plan["reward_models/steps/seed-0"]
    setup = Setup(compute=Compute(device="cpu", dtype="float32"), lengths=Lengths(prompt=32, completion=8))
    reward = open_model_reward(graph.run(node.name), setup, "cpu", graph.run(node.inputs["start"]))
    assert (reward.beta, reward.reference is not None) == (0.05, True)
