"""Networks in bfloat16 whose checks fail by rounding alone are asked again in float32; those that are wrong are found wrong."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from evenhand.models import layout_check
from evenhand.models.policy import Policy
from evenhand.models.second_opinion import also_in_float32, in_float32
from tests.models.tiny_networks import VOCABULARY, network

KINDS = ["llama", "gemma2", "qwen3_moe", "gpt2"]
IDS = torch.arange(3, 14)[None] % VOCABULARY


@pytest.mark.parametrize("kind", KINDS)
def test_inside_it_is_the_same_network_in_float32_and_afterwards_what_it_was(kind):
    hf = network(kind).to(torch.bfloat16)
    wide, before = copy.deepcopy(hf).float(), {n: (p.data_ptr(), p.dtype) for n, p in hf.named_parameters()}
    with torch.no_grad(), in_float32(hf):
        inside = hf(input_ids=IDS).logits
    assert inside.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(inside, wide(input_ids=IDS).logits, rtol=1e-5, atol=1e-6)
        assert hf(input_ids=IDS).logits.dtype == torch.bfloat16
    assert {n: (p.data_ptr(), p.dtype) for n, p in hf.named_parameters()} == before


def test_an_error_inside_leaves_it_as_it_was():
    hf = network("llama").to(torch.bfloat16)
    with pytest.raises(IndexError), in_float32(hf):
        hf(input_ids=IDS + 10 * VOCABULARY)
    assert {p.dtype for p in hf.parameters()} == {torch.bfloat16}


class Tied(torch.nn.Module):
    """Its outputs are products with the weights of a module that it has, as functions read them and no module's forward pass."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(9, 4, dtype=torch.bfloat16)

    def forward(self, ids):
        return self.table(ids) @ self.table.weight.T


def test_a_network_that_cannot_be_asked_again_keeps_the_first_answer():
    def problem(net):
        net(IDS % 9)
        return "it is wrong"

    net = Tied()
    assert also_in_float32(problem)(net) == "it is wrong"
    assert net.table.weight.dtype == torch.bfloat16


@pytest.fixture
def strict(monkeypatch):
    """Nothing in bfloat16 is near enough: as in a network so deep that rounding fills what is allowed."""
    monkeypatch.setitem(layout_check.TOLERANCE, torch.bfloat16, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_alone_costs_no_tree(strict, kind):
    assert Policy(network(kind).to(torch.bfloat16)).layout_mode == "tree"


def test_a_wrong_tree_is_found(strict, monkeypatch):
    right = layout_check.tree_states

    def shifted(hf, batch):
        states = right(hf, batch)
        return replace(states, hidden=states.hidden.roll(1, 0))

    monkeypatch.setattr(layout_check, "tree_states", shifted)
    with pytest.warns(UserWarning, match="runs on padded rows"):
        assert Policy(network("llama").to(torch.bfloat16)).layout_mode == "padded"
