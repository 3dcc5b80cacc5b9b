"""Self-distillation through the real plan and stages: an arm that learns from its own better answers."""

from __future__ import annotations

import json

import pytest

from tests.stages.performed import SMALL, Graph

TEXT = (
    f"{SMALL}name: self_taught"
    + """
train: {steps: 3, prompts_per_step: 3, learning_rate: 1.0e-3, schedule: constant}
arms:
  start: {method: start}
  taught: {method: self_distillation, reward: {kind: length, unit: chars}, success: 1.0, completions_per_prompt: 4}
  never: {method: self_distillation, reward: {kind: length, unit: chars}, success: 1000.0, completions_per_prompt: 4}
  exact: {method: exact_self_distillation, reward: {kind: length, unit: chars}, success: 1, completions_per_prompt: 4, mix: 0.01}
  itself: {method: exact_self_distillation, reward: {kind: length, unit: chars}, success: 1, completions_per_prompt: 4, mix: 1}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return Graph(tmp_path_factory.mktemp("self_taught"), TEXT)


def metrics(graph, name):
    return [json.loads(line) for line in (graph.arm(name) / "metrics.jsonl").read_text().splitlines()]


def test_an_arm_learns_from_its_own_better_answers(graph):
    for name, learns in (("taught", True), ("exact", True), ("itself", True), ("never", False)):
        rows = metrics(graph, name)
        assert [row["grad_norm"] > 0 for row in rows] == [learns] * 3, "without a good answer nobody is shown one"
        assert all("reward" in row for row in rows)


def test_the_teacher_is_an_average_of_the_policy(graph):
    """The start at first; after one step the policy itself is another teacher than a hundredth of it."""
    slow, quick = metrics(graph, "exact"), metrics(graph, "itself")
    assert slow[0] == quick[0]
    assert slow[1]["reward"] == quick[1]["reward"], "one step took both to the same weights"
    assert abs(slow[1]["divergence"] - quick[1]["divergence"]) > 1e-6
