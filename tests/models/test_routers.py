"""The load-balancing loss of mixtures of experts: transformers' own number and gradient, however a step is cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from evenhand.data.batch import pack
from evenhand.errors import UserError
from evenhand.models import routers
from evenhand.models.policy import Policy
from evenhand.objectives.likelihood import Likelihood
from evenhand.objectives.router_balance import RouterBalance, balanced
from evenhand.train.loop import accumulate, evaluate
from tests.models.tiny_networks import SHAPES, assert_same_gradients, gradients, network, token_groups

WEIGHT = 0.3
EXPERTS = {"output_router_logits": True, "router_aux_loss_coef": WEIGHT, "num_experts_per_tok": 2}
KINDS = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "olmoe": {"num_experts": 4},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 8},
}


def moe(kind, **more):
    return network(kind, **{**EXPERTS, **KINDS[kind], **more})


def rows(groups):
    """Rows as transformers would be given them: prompt and answer, padded on the right."""
    whole = [torch.tensor(g.prompt + c.ids) for g in groups for c in g.completions]
    ids = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(r) for r in whole], batch_first=True)
    return ids, mask


def found(policy, groups, cut):
    """Value, gradients and the loop's metrics of the routers' loss alone, over micro-batches of these groups."""
    policy.hf.zero_grad()
    loss, metrics = accumulate(policy, RouterBalance(), [pack([groups[i] for i in part]) for part in cut])
    return loss, {n: p.grad.clone() for n, p in policy.hf.named_parameters() if p.grad is not None}, metrics


@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradient_are_transformers_own(kind):
    """Prompts with several answers too: a prompt's tokens count in each of its rows, though they are computed once."""
    groups = token_groups(SHAPES)
    hf = moe(kind)
    ids, mask = rows(groups)
    out = hf(input_ids=ids, attention_mask=mask, output_router_logits=True)
    expected = load_balancing_loss_func(out.router_logits, 4, 2, mask)
    assert float(out.aux_loss.detach()) == pytest.approx(float(expected.detach()))
    wanted = gradients(hf, expected)
    policy = Policy(hf).with_routers()
    value, gradient, _ = found(policy, groups, [range(len(groups))])
    assert float(value) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert_same_gradients(gradient, wanted)


@pytest.mark.parametrize("cut", [[[0, 1], [2, 3, 4]], [[4], [3], [2], [1], [0]], [[0, 2, 4], [1, 3]]])
def test_neither_value_nor_gradient_depends_on_the_cut(cut):
    groups, policy = token_groups(SHAPES), Policy(moe("mixtral")).with_routers()
    value, gradient, _ = found(policy, groups, [range(len(groups))])
    other, others, _ = found(policy, groups, cut)
    assert float(other) == pytest.approx(float(value), rel=1e-5)
    assert_same_gradients(others, gradient)


def test_the_mean_of_micro_batches_is_another_number():
    """What transformers and trainers on it do when they accumulate: the test above tells the two apart."""
    groups, policy = token_groups(SHAPES), Policy(moe("mixtral")).with_routers()
    parts = [float(found(policy, groups, [[i]])[0]) for i in range(len(groups))]
    whole = float(found(policy, groups, [range(len(groups))])[0])
    assert abs(sum(parts) / len(parts) - whole) > 1e-3 * whole


def test_beside_an_objective_each_keeps_its_own_denominator():
    groups, policy = token_groups(SHAPES), Policy(moe("qwen2_moe")).with_routers()
    batches = [pack(groups[:2]), pack(groups[2:])]
    alone, _ = accumulate(policy, Likelihood(), batches)
    routed, _ = accumulate(policy, RouterBalance(), batches)
    both, metrics = accumulate(policy, balanced(Likelihood(), WEIGHT), batches)
    assert float(both) == pytest.approx(float(alone) + WEIGHT * float(routed), rel=1e-5)
    shown = metrics["router_balance"]
    assert float(shown.total / shown.count) == pytest.approx(float(routed), rel=1e-5)
    assert evaluate(policy, balanced(Likelihood(), WEIGHT), batches)["loss"] == pytest.approx(float(both), rel=1e-5)


def test_rows_without_a_gradient_are_left_out():
    groups, policy = token_groups(SHAPES), Policy(moe("mixtral")).with_routers()
    counted, idle = pack(groups[:3]), replace(pack(groups[3:]), denominator_only=True)
    value, _ = accumulate(policy, RouterBalance(), [counted])
    assert float(accumulate(policy, RouterBalance(), [counted, idle])[0]) == float(value)
    assert evaluate(policy, RouterBalance(), [counted, idle])["loss"] == pytest.approx(float(value))


def test_on_padded_rows_and_with_layers_computed_twice_it_is_the_same():
    groups, hf = token_groups(SHAPES), moe("mixtral")
    policy = Policy(hf).with_routers()
    value, gradient, _ = found(policy, groups, [range(len(groups))])
    policy.set_checkpointing()
    again, twice, _ = found(policy, groups, [range(len(groups))])
    assert_same_gradients(twice, gradient)
    policy.layout_mode = "padded"
    padded, on_rows, _ = found(policy, groups, [range(len(groups))])
    assert float(padded) == pytest.approx(float(value), rel=1e-5)
    assert float(again) == float(value)
    assert_same_gradients(on_rows, gradient)


def test_routers_that_serve_all_alike_give_the_number_of_experts_that_serve_a_token():
    even = torch.zeros(6, 4)
    experts = torch.stack([torch.full((4,), 3.0), even.softmax(-1).sum(0)])  # 6 tokens, two experts each
    assert float(routers.balance(experts, experts[0] / 6) / 6) == pytest.approx(2.0)


def test_a_config_asks_for_it_or_does_not():
    assert routers.configured_weight(moe("mixtral").config) == WEIGHT
    assert routers.configured_weight(moe("mixtral", output_router_logits=False).config) is None
    assert routers.configured_weight(network("llama").config) is None


def test_a_network_without_routers_refuses_it():
    with pytest.raises(UserError, match="routers of LlamaForCausalLM cannot be balanced"):
        Policy(network("llama")).with_routers()
