"""An arm whose start is kept in four bits, through the stages: its reference, what it leaves, what is read of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from evenhand.models.adapters import counted, round_weights
from evenhand.models.load import load_policy
from evenhand.models.packed_layers import PackedLinear
from evenhand.stages.common import model_path
from evenhand.stages.offline import frozen_start
from tests.stages.performed import SMALL, Graph
from tests.stages.test_adapters import logps

TEXT = (
    f"{SMALL}name: quantized"
    + """
train: {steps: 3, prompts_per_step: 3, learning_rate: 1.0e-2, checkpoint_every: 1, adapter: {rank: 2}}
arms:
  start: {method: start}
  dpo: {method: dpo, train: {adapter: {quantize: nf4}}}
  rloo: {method: rloo, reward: gold, completions_per_prompt: 2, train: {adapter: {quantize: nf4, modules_to_save: [norm]}}}
  wide: {method: dpo}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Graph:
    return Graph(tmp_path_factory.mktemp("quantized"), TEXT)


def first_row(artifact: Path) -> dict:
    return json.loads((artifact / "metrics.jsonl").read_text().splitlines()[0])


def test_a_loss_against_the_start_in_four_bits_begins_at_log_two(graph):
    """So it would not against the start as it came, which is the reference of the arm without."""
    assert first_row(graph.arm("dpo"))["loss"] == pytest.approx(math.log(2), abs=1e-5)
    nodes = [graph.plan[graph.plan.arms[name][0]].inputs["reference"] for name in ("dpo", "wide")]
    assert len({graph.plan[node].key for node in nodes}) == 2


def test_what_is_read_is_the_trained_network(graph, monkeypatch):
    from evenhand.stages import fit

    seen, finish = {}, fit.finish

    def look(training_run, out):
        seen["trained"] = logps(training_run, training_run.model)
        finish(training_run, out)
        assert any(type(m) is PackedLinear for m in training_run.model.modules())
        seen["read"] = logps(training_run, load_policy(model_path(out)))

    graph.inputs(graph.plan.arms["dpo"][0])  # what it starts from is trained as ever
    monkeypatch.setattr(fit, "finish", look)
    out = graph.run(graph.plan.arms["dpo"][0], graph.folder / ("f" * 32))  # beside its start, as in a store
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(seen["trained"], seen["read"], strict=True))
    assert json.loads((out / "adapter" / "trained.json").read_text())["quantize"] == "nf4"


def test_a_method_that_samples_learns_against_the_start_in_four_bits(graph):
    """With a module that learns whole the reference is a copy of its own: also in four bits."""
    graph.arm("rloo")
    training_run = graph.opened("rloo")
    start = load_policy(model_path(training_run.inputs["start"]))
    round_weights(start.hf)
    expected, frozen = logps(graph.opened("dpo"), start), logps(graph.opened("dpo"), frozen_start(training_run))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(expected, frozen, strict=True))
    learns, weights = counted(training_run.model)
    assert 0 < learns < weights


def test_a_kill_changes_no_byte(graph, tmp_path):
    graph.kill("dpo", tmp_path, 2)
    kept = ("metrics.jsonl", "adapter/adapter_model.safetensors", "adapter/trained.json")
    assert graph.differing("dpo", tmp_path, *kept) == []
