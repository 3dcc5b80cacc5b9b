"""The reference pass reads what is learned from: the same bytes for those rows and what learns from them, and few others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evenhand.plan import plan, training
from evenhand.spec.read import read_experiment
from evenhand.stages.reference import read_rows
from tests.stages.performed import SMALL, Graph, perform

MANY = SMALL.replace("preferences: 40", "preferences: 240")
STEPS = """
train: {steps: 2, prompts_per_step: 3, tokens_per_microbatch: 96}
arms:
  start: {method: start}
  dpo: {method: dpo}
  longer: {method: ipo, train: {steps: 5}}
  alone: {method: kto, per_seed: false}
judge: {reward: gold}
name: drawn
seeds: [1, 2]
"""


def drawn(text: str):
    graph = plan.build(read_experiment(MANY + text).value)
    return [n.spec.drawn for n in graph.nodes if n.kind == "reference"]


def test_rows_are_counted_over_arms_and_seeds_by_powers_of_two():
    assert drawn(STEPS) == [((1, 64), (2, 64), (0, 64))] * 2
    assert drawn(STEPS.replace("steps: 5", "steps: 43")) == [((1, 256), (2, 256), (0, 64))] * 2, "129 rows"
    assert drawn(STEPS.replace("train: {steps: 5}", "train: {steps: 2}")) == drawn(STEPS), "other steps, the same pass"


@pytest.mark.parametrize(
    "other", ["train: {steps: null, epochs: 1}", "train: {steps: 5, keep_checkpoint: best, validate_every: 5}"]
)
def test_an_arm_that_may_draw_any_row_has_all_read(other):
    assert drawn(STEPS.replace("train: {steps: 5}", other)) == [None] * 2


def test_what_is_learned_from_is_read_as_it_was_and_the_rest_is_not(tmp_path, monkeypatch):
    graph = Graph(tmp_path / "some", MANY + STEPS)
    dpo = graph.plan[graph.plan.arms["dpo"][1]]
    node = graph.plan[dpo.inputs["reference"]]
    some = read_rows(graph.run(node.name))
    every = read_rows(perform(node.kind, replace(node.spec, drawn=None), graph.inputs(node.name), tmp_path / "every"))
    read = [row for row in range(len(some)) if not some[row][0].isnan().any()]
    assert 64 <= len(read) < len(some), "the rest would be read for nothing"
    assert all((a == b).all() for row in read for a, b in zip(some[row], every[row], strict=True))
    monkeypatch.setattr(training, "_drawn", lambda graph: None)
    whole = Graph(tmp_path / "whole", MANY + STEPS)
    for file in ("model/model.safetensors", "metrics.jsonl"):
        assert (graph.run(dpo.name) / file).read_bytes() == (whole.run(dpo.name) / file).read_bytes()
