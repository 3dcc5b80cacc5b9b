"""A start in four bits under an adapter: what it computes, what it holds, and what is saved of it."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from evenhand.core import nf4
from evenhand.errors import UserError
from evenhand.models import adapter_layers, adapters
from evenhand.models.adapter_config import Adapter
from evenhand.models.adapter_models import save_adapted
from evenhand.models.adapters import attach, counted, pack, round_weights
from evenhand.models.decode import decoder_for
from evenhand.models.load import load_policy, save
from evenhand.models.packed_layers import PackedLinear
from evenhand.models.policy import Policy
from evenhand.train.flops import shape_of
from evenhand.types import Head
from tests.models.test_adapter_models import assert_equal_weights, start_of
from tests.models.test_adapters import moved
from tests.models.tiny_networks import a_batch, character_tokenizer, network


def quantized(kind: str = "llama", **named) -> Policy:
    policy = Policy(network(kind))
    attach(policy, Adapter(**{"rank": 4, "alpha": 8.0, "quantize": "nf4", **named}), seed=0)
    return policy


def rounded(kind: str = "llama") -> Policy:
    """The plain network with the weights that four bits stand for."""
    return Policy(round_weights(network(kind)))


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_a_packed_layer_is_the_layer_with_the_weight_it_stands_for(narrow, biased):
    layer = nn.Linear(64, 96, bias=biased)
    plain = nn.Linear(64, 96, bias=biased)
    plain.load_state_dict({**layer.state_dict(), "weight": nf4.rounded(layer.weight)})
    found = []
    for module in (PackedLinear(layer).requires_grad_(False), plain.requires_grad_(False)):
        x = torch.linspace(-2, 2, 40 * 64).view(2, 20, 64).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            y = module(x)
        (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
        found.append((y.detach(), x.grad))
    for ours, torchs in zip(*found, strict=True):
        assert_close(ours, torchs, rtol=0, atol=0) if narrow else assert_close(ours, torchs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3_moe", "gemma2", "phi3", "gpt_neox", "opt"])
def test_training_begins_at_the_start_in_four_bits_and_so_does_the_reference(kind):
    policy, batch = quantized(kind), a_batch()
    start = rounded(kind)(batch).logp.detach()
    assert_close(policy(batch).logp.detach(), start, rtol=1e-5, atol=1e-5)
    assert float((Policy(network(kind))(batch).logp - start).abs().max()) > 1e-3, "four bits change something"
    now = moved(policy)(batch).logp.detach()
    assert_close(adapter_layers.Start(policy)(batch, frozenset({Head.LOGP})).logp, start, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(now, start, atol=1e-3)


def test_what_it_holds():
    """Of each linear layer of the trunk 4.5 bits a weight; the adapter alone learns; operations are counted as ever."""
    policy, plain = quantized(), Policy(network("llama"))
    layers = adapters.linear_layers(network("llama"))
    weights = sum(m.weight.numel() for m in layers.values())
    packed = [m for m in policy.modules() if type(m) is PackedLinear]
    assert len(packed) == len(layers)
    assert sum(b.nbytes for m in packed for b in m.buffers(recurse=False)) == weights * 4.5 / 8
    assert {n.split(".")[-3] for n, p in policy.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    added = counted(policy)[0]
    assert counted(policy) == (added, added + counted(plain)[1])
    ours, expected = shape_of(policy), shape_of(plain)
    assert (ours.weights, ours.learning, ours.head) == (expected.weights + added, added, expected.head)


def test_wide_weights_are_gone_once_they_are_packed():
    """At once, and not when the collector happens to run."""
    policy = Policy(network("llama"))
    wide = [weakref.ref(layer.weight) for layer in adapters.linear_layers(policy.hf).values()]
    attach(policy, Adapter(rank=2, quantize="nf4"), seed=0)
    assert [held() for held in wide] == [None] * len(wide)


def test_no_wide_weight_lives_until_the_backward_pass():
    policy, seen = quantized(), []
    shapes = {m.weight.shape for m in adapters.linear_layers(network("llama")).values()}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t.shape) or t, lambda t: t):
        policy(a_batch()).logp.sum().backward()
    assert seen
    assert not shapes & set(seen)


@pytest.mark.parametrize(("dtype", "form"), [("float32", "lora"), ("bfloat16", "lora"), ("float32", "dora")])
def test_what_is_saved_is_the_live_network(dtype, form, tmp_path):
    """Merged into a plain model: its log-probs within 1e-5 nats in float32; the adapter read on the unpacked start: its bytes."""
    start, batch = start_of(tmp_path), a_batch()
    policy = load_policy(start, dtype=dtype, device="cpu")
    attach(policy, Adapter(form=form, rank=3, quantize="nf4"), seed=0)
    live = moved(policy)(batch).logp.detach()
    save(policy, character_tokenizer(), tmp_path / "whole")
    save_adapted(policy, character_tokenizer(), tmp_path / "adapter", start=start)
    whole = load_policy(tmp_path / "whole", dtype=dtype, device="cpu")
    tolerance = 1e-5 if dtype == "float32" else 5e-2
    assert_close(whole(batch).logp, live, rtol=tolerance, atol=tolerance)
    assert_equal_weights(whole, load_policy(tmp_path / "adapter", dtype=dtype, device="cpu"))
    assert torch.equal(policy(batch).logp.detach(), live), "saving left no trace"


@pytest.mark.parametrize("targets", ["all_linear", ("q_proj",)])
def test_samples_follow_it(targets):
    policy = moved(quantized(targets=targets))
    plain = load_like(policy)

    def stepped(model) -> torch.Tensor:
        decoder = decoder_for(model.hf)
        with decoder.ready(None):
            session = decoder.open([[5, 9, 11], [4, 8]], [0, 0, 1])
            return torch.stack([session.step(torch.arange(3) + 20 + t) for t in range(3)])

    assert_close(stepped(policy), stepped(plain), rtol=1e-4, atol=1e-5)


def load_like(policy: Policy) -> Policy:
    """A plain network with the merged weights."""
    made = network("llama")
    with adapter_layers.merged(policy.hf):
        made.load_state_dict(policy.hf.state_dict())
    return Policy(made)


def test_what_cannot_be_kept_in_four_bits_is_refused():
    with pytest.raises(UserError, match="is a Conv1D, which cannot be kept in four bits"):
        pack(network("gpt2"))
    with pytest.raises(UserError, match="mlp' would learn whole and be kept in four bits"):
        quantized(targets=("q_proj",), modules_to_save=("mlp",))
    assert quantized(modules_to_save=("norm",)).hf.model.norm.weight.requires_grad
