"""What fake tensors say against what real ones hold, and against arithmetic on paper."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from evenhand.data.batch import pack
from evenhand.models.adapter_config import Adapter
from evenhand.models.packed_layers import PackedLinear
from evenhand.models.policy import Policy
from evenhand.plan.costs.network import Precision, network
from evenhand.plan.costs.trace import trunk_cost
from evenhand.train.flops import shape_of
from evenhand.types import Completion, Group, Prompt, TokenGroup, Tokens

SHAPE = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip


def policy(dtype=torch.float32) -> Policy:
    torch.manual_seed(0)
    return Policy(AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE), dtype=dtype))


def row(tokens: int):
    """A prompt and two answers, a third of the tokens each."""
    third = tokens // 3
    answer = Tokens(ids=(5,) * third, mask=(True,) * third)
    group = Group(prompt=Prompt(content=""), completions=(Completion(content=""),) * 2)
    return pack([TokenGroup(prompt=(4,) * (tokens - 2 * third), completions=(answer, answer), group=group)])


def kept(model: Policy, tokens: int) -> int:
    """Bytes of every storage that autograd saves in a real forward pass, but for weights."""
    seen, held = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def pack_hook(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            held[storage.data_ptr()] = storage  # kept alive, so that no address is used twice
        return tensor

    model.hf.get_input_embeddings().requires_grad_(False)
    with torch.autograd.graph.saved_tensors_hooks(pack_hook, lambda t: t):
        hidden = model.states(row(tokens)).hidden
    assert hidden.requires_grad
    return sum(s.nbytes() for s in held.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layers_keep_what_real_ones_keep(dtype):
    cost = trunk_cost(LlamaConfig(**SHAPE), dtype=dtype)
    model = policy(getattr(torch, dtype))
    for tokens in (120, 300):
        said = 3 * cost.layer.at(tokens) + cost.rest.at(tokens)
        assert said == pytest.approx(kept(model, tokens), rel=0.06), tokens


def test_what_is_kept_grows_with_tokens_and_not_with_rows_between():
    cost = trunk_cost(LlamaConfig(**SHAPE), dtype="float32")
    assert cost.layer.fixed == pytest.approx(0, abs=64)
    wide = trunk_cost(LlamaConfig(**{**SHAPE, "intermediate_size": 160}), dtype="float32")
    # gate, up, silu(gate) and their product: four tensors of the intermediate width
    assert wide.layer.per_token - cost.layer.per_token == pytest.approx(4 * 80 * 4, rel=0.01)


def test_narrower_products_keep_narrow_copies_of_the_weights():
    cost = trunk_cost(LlamaConfig(**SHAPE), dtype="float32", matmul="bfloat16")
    weights = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 80
    assert cost.layer.fixed == pytest.approx(2 * weights, rel=0.01)


def packed_weights(model: Policy) -> list[torch.Tensor]:
    return [buffer for m in model.modules() if type(m) is PackedLinear for buffer in m.buffers(recurse=False)]


def test_weights_in_four_bits_on_paper():
    """A block has 2 x 32 x 32 + 2 x 32 x 16 + 3 x 32 x 80 = 10,752 weights, at 4.5 bits; of them 32 x 80 are wide at a time."""
    found = network(LlamaConfig(**SHAPE), Precision(dtype="float32"), Adapter(rank=2, quantize="nf4"))
    wide = network(LlamaConfig(**SHAPE), Precision(dtype="float32"), Adapter(rank=2))
    assert wide.weight_bytes - found.weight_bytes == 3 * 10_752 * (32 - 4.5) / 8
    assert found.unpacked_bytes == 32 * 80 * (2 + 4 + 4)
    assert (found.loaded_bytes, wide.unpacked_bytes) == (wide.weight_bytes, 0)


@pytest.mark.parametrize("adapter", [None, Adapter(rank=2), Adapter(rank=2, quantize="nf4")])
def test_a_network_in_numbers_is_the_real_one(adapter):
    from evenhand.models.adapters import attach, counted

    model = policy()
    if adapter is not None:
        attach(model, adapter, seed=0)
    found = network(LlamaConfig(**SHAPE), Precision(dtype="float32"), adapter)
    learning, total = counted(model)
    assert (found.learning, found.parameters) == (learning, total)
    assert found.shape == shape_of(model)
    assert found.cached == 3 * 2 * 16
    assert found.tied
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in [*model.parameters(), *packed_weights(model)]}
    assert found.weight_bytes == sum(held.values())
