"""How a step is packed, ordered, cut, checkpointed or kept in dropout mode does not change what it computes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from evenhand.data.batch import pack
from evenhand.models.policy import Policy
from tests.models.tiny_networks import a_batch, assert_same_gradients, gradients, network, rows_of, token_groups, weighted


@pytest.fixture(scope="module")
def policy():
    return Policy(network("qwen2"))


def rows(policy, groups):
    return rows_of(policy(pack(groups)).logp, groups)


def test_groups_do_not_see_each_other(policy):
    groups = token_groups()
    together = rows(policy, groups)
    apart = [row for group in groups for row in rows(policy, [group])]
    for a, b in zip(together, apart, strict=True):
        assert_close(a, b, rtol=0, atol=5e-6)


def test_completions_do_not_see_each_other(policy):
    group = token_groups(((6, (5, 5, 2)),))[0]
    together = rows(policy, [group])
    for row, tokens in zip(together, group.completions, strict=True):
        alone = type(group)(prompt=group.prompt, completions=(tokens,), group=group.group)
        assert_close(row, rows(policy, [alone])[0], rtol=0, atol=5e-6)


def test_order_of_groups_and_completions_is_irrelevant(policy):
    groups = token_groups()
    forward = rows(policy, groups)
    backward = rows(policy, [type(g)(prompt=g.prompt, completions=g.completions[::-1], group=g.group) for g in groups[::-1]])
    for a, b in zip(forward, backward[::-1], strict=True):
        assert_close(a, b, rtol=0, atol=5e-6)


def test_gradients_of_micro_batches_add_up():
    model = network("qwen2")
    policy, groups = Policy(model), token_groups()
    counts = [len(g.completions) for g in groups]
    whole = gradients(model, weighted(rows(policy, groups)))
    at, total = 0, {}
    for number, group in enumerate(groups):
        logps = rows(policy, [group])
        loss = sum((x * torch.linspace(0.3 + at + i, 1.7, len(x))).sum() for i, x in enumerate(logps))
        for name, gradient in gradients(model, loss).items():
            total[name] = total.get(name, 0) + gradient
        at += counts[number]
    assert_same_gradients(total, whole)


@pytest.mark.parametrize("kind", ["qwen2", "opt", "falcon", "gemma2"])
@pytest.mark.filterwarnings("ignore:.*padded rows")
def test_checkpointing_gives_identical_gradients(kind):
    model = network(kind)
    policy, groups = Policy(model), token_groups()
    plain = gradients(model, weighted(rows(policy, groups)))
    policy.set_checkpointing()
    calls = []
    within_a_layer = next(m for name, m in model.named_modules() if ".0." in name and isinstance(m, torch.nn.Linear))
    within_a_layer.register_forward_hook(lambda *_: calls.append(1))
    loss = weighted(rows(policy, groups))
    assert len(calls) == 1
    again = gradients(model, loss)
    assert len(calls) == 2, "the layer was not recomputed in the backward pass"
    assert set(again) == set(plain)
    for name, gradient in plain.items():
        assert torch.equal(again[name], gradient), name
    assert not any(m.training for m in model.modules())


@pytest.mark.parametrize("kind", ["gpt2", "opt", "phi", "llama"])
def test_dropout_is_off_even_in_training(kind):
    rates = {"attention_dropout": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5, "dropout": 0.5}
    model = network(kind, **rates)
    policy, batch = Policy(model), a_batch()
    policy.train()
    policy.set_checkpointing()
    first, second = policy(batch).logp, policy(batch).logp
    assert torch.equal(first, second)
    policy.eval()
    assert torch.equal(first, policy(batch).logp)
    assert 0.5 in vars(model.config).values(), "the config, and so what is saved, keeps the rates"


def test_a_copy_is_independent_and_equal(policy):
    other, batch = copy.deepcopy(policy), a_batch()
    assert torch.equal(other(batch).logp, policy(batch).logp)
    with torch.no_grad():
        next(other.hf.get_output_embeddings().parameters()).mul_(2)
    assert not torch.equal(other(batch).logp, policy(batch).logp)


def test_wrapping_twice_changes_nothing(policy):
    assert torch.equal(Policy(policy.hf)(a_batch()).logp, policy(a_batch()).logp)


def test_products_in_half_precision_stay_close_and_leave_weights_alone():
    model = network("qwen2")
    policy, batch = Policy(model), a_batch()
    exact = policy(batch).logp
    policy.set_matmul_dtype(torch.bfloat16)
    rough = policy(batch).logp
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1
    found = gradients(model, rough.sum())
    assert all(g.dtype == torch.float32 for g in found.values())
    policy.set_matmul_dtype(None)
    assert torch.equal(policy(batch).logp, exact)
