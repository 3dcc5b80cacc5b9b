"""Self-distillation through the real plan and stages: an arm that learns from its own better answers."""

from __future__ import annotations

import json

from tests.stages.performed import SMALL, Graph

TEXT = (
    f"{SMALL}name: self_taught"
    + """
train: {steps: 3, prompts_per_step: 3, learning_rate: 1.0e-3, schedule: constant}
arms:
  start: {method: start}
  taught: {method: self_distillation, reward: {kind: length, unit: chars}, success: 1.0, completions_per_prompt: 4}
  never: {method: self_distillation, reward: {kind: length, unit: chars}, success: 1000.0, completions_per_prompt: 4}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)


def test_an_arm_learns_from_its_own_better_answers(tmp_path):
    graph = Graph(tmp_path, TEXT)
    for name, learns in (("taught", True), ("never", False)):
        rows = [json.loads(line) for line in (graph.arm(name) / "metrics.jsonl").read_text().splitlines()]
        assert [row["grad_norm"] > 0 for row in rows] == [learns] * 3, "without a good answer nobody is shown one"
        assert all("reward" in row for row in rows)
