"""A network that nobody needs is gone at once: nothing in it holds itself."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch.testing import assert_close

from evenhand.models.adapter_config import Adapter
from evenhand.models.adapters import attach
from evenhand.models.decode import decoder_for
from evenhand.models.heads import RewardModel, ValuePolicy, scored
from evenhand.models.policy import Policy
from evenhand.types import Head
from tests.models.tiny_networks import a_batch, network


@pytest.fixture
def uncollected():
    """No garbage collector: what is in a circle stays. The first network of a process leaves frames of its imports behind."""
    for kind in ("scores", "nf4"):
        used(kind)
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def a_reward_model() -> RewardModel:
    from transformers import AutoModelForSequenceClassification

    config = network("llama").config
    config.num_labels = 1
    return scored(AutoModelForSequenceClassification.from_config(config), 0)


def used(kind: str) -> list[weakref.ref]:
    """The weights of a model that took a step and sampled, and was dropped."""
    model = {"policy": Policy, "values": ValuePolicy}[kind](network("llama")) if kind in ("policy", "values") else None
    model = model or (a_reward_model() if kind == "scores" else Policy(network("llama")))
    if kind in ("adapter", "nf4"):
        attach(model, Adapter(rank=2, quantize="nf4" if kind == "nf4" else None), seed=0)
    out = model(a_batch(), frozenset({Head.SCORE if kind == "scores" else Head.LOGP}))
    (out.score if kind == "scores" else out.logp).sum().backward()
    if kind != "scores":
        decoder = decoder_for(model.hf)
        with decoder.ready():
            decoder.open([[5, 9], [4]], [0, 1]).step(torch.tensor([3, 4]))
    return [weakref.ref(t) for t in (*model.parameters(), *model.buffers())]


@pytest.mark.parametrize("kind", ["policy", "values", "scores", "adapter", "nf4"])
def test_a_dropped_model_takes_its_weights_along(kind, uncollected):
    held = [w for w in used(kind) if w() is not None]
    assert not held, f"{len(held)} tensors are still there"


def test_a_copy_computes_with_its_own_weights():
    policy, batch = Policy(network("llama")), a_batch()
    before = policy(batch).logp.detach()
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    assert torch.equal(policy(batch).logp, before)
    assert not torch.allclose(other(batch).logp, before)


def test_a_linear_layer_computes_its_product():
    policy = Policy(network("qwen2"))
    layer, x = policy.hf.model.layers[0].self_attn.q_proj, torch.randn(3, 5, 32)
    assert_close(layer(x), x @ layer.weight.t() + layer.bias, rtol=1e-5, atol=1e-6)
