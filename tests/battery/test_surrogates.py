"""Surrogates, corrections and choices of tokens in a whole step: what they reduce to, as equal loss and gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from evenhand.errors import UserError
from evenhand.objectives import PolicyGradient
from evenhand.train import loop
from evenhand.train.examples import assemble, micro_batches
from tests.battery.test_reductions import WIDE, built, on_policy, one_token, scaled_behaviour, step, with_objective
from tests.battery.world import gradients, items_for, network, same

ITEMS = items_for(built("grpo"))
"""Whose KL in the loss keeps every completion alive."""
REDUCE = {"gmpo": "sequence_mean", "sapo": "sequence_mean", "vespo": "token_mean", "luspo": "sequence_sum", "dppo": "token_mean",
          "clip_cov": "token_mean", "kl_cov": "token_mean"}  # fmt: skip


@pytest.mark.parametrize("name", REDUCE)
def test_on_policy_every_surrogate_has_the_gradient_of_reinforce(name):
    """GSPO's form spreads it evenly over an answer's tokens: under a sum, of answers of one token."""
    settings = {"share": 1e-9, "least": WIDE, "most": 2 * WIDE} if name == "clip_cov" else {}
    items = on_policy(one_token(ITEMS) if name == "luspo" else ITEMS)
    if name == "dppo":  # whose ratio is to the sampler
        items = [replace(i, per_token={k: v for k, v in i.per_token.items() if k != "behaviour_logp"}) for i in items]
    plain = replace(built(name), objective=PolicyGradient(surrogate="reinforce", reduce=REDUCE[name]))
    torch.testing.assert_close(step(built(name, **settings), items)[1], step(plain, items)[1], rtol=1e-5, atol=1e-8)


SAME = [
    ("luspo", {"low": 0.1, "high": 0.3}, "gspo", {"low": 0.1, "high": 0.3}, one_token),
    ("gmpo", {"low": -math.log(0.8), "high": math.log(1.2)}, "grpo", {"kl": 0.0}, one_token),
    ("top_entropy", {"share": 1.0}, "dapo", {}, list),
    ("clip_cov", {"least": WIDE, "most": 2 * WIDE}, "lite_ppo", {}, list),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameters", "other", "settings", "cut"), SAME)
def test_reduces_to(name, parameters, other, settings, cut):
    items = cut(ITEMS)
    same(step(built(name, **parameters), items), step(built(other, **settings), items))
    if name != "clip_cov":  # whose few tokens are none of these
        assert (step(built(name), ITEMS)[1] - step(built(other, **settings), ITEMS)[1]).abs().max() > 1e-6


CHOOSING = {"clip_cov": {"share": 0.2, "least": 0.1, "most": 2.0}, "kl_cov": {"share": 0.2}, "top_entropy": {"share": 0.3}}


def chosen(name: str, budget: int) -> dict[tuple, list[bool]]:
    """What is picked, by completion: its tokens and how they were sampled."""
    method = built(name, **CHOOSING[name])
    batches = loop.with_statistics(network(method), method.objective, micro_batches(ITEMS, budget), 1.0)
    found = {}
    for batch in batches:
        picked = batch.statistics["top_entropy" if name == "top_entropy" else "chosen"]
        assert (picked & ~batch.completion_mask).sum() == 0
        for span, flags, told in zip(batch.layout.completions, picked, batch.behaviour_logp, strict=True):
            found[tuple(told[: span.length].tolist())] = flags[: span.length].tolist()
    return found


@pytest.mark.parametrize("name", CHOOSING)
def test_what_is_chosen_is_a_share_of_the_step_however_it_is_cut(name):
    """One micro-batch or many: the same tokens, their share of all tokens rounded down, but for ties."""
    whole, pieces = chosen(name, 10_000), chosen(name, 1)
    assert whole == pieces
    tokens = sum(sum(c.mask) for i in ITEMS for c in i.tokens.completions)
    picked = sum(sum(flags) for flags in whole.values())
    wanted = math.floor(CHOOSING[name]["share"] * tokens)
    assert wanted <= picked <= wanted + 2, "three answers share the state before their first token"
    method = built(name, **CHOOSING[name])
    one, four = (
        gradients(method, [assemble(g) for g in cut]) for cut in ([ITEMS], [ITEMS[:1], ITEMS[1:2], ITEMS[2:3], ITEMS[3:]])
    )
    same(one, four)


def test_clip_cov_takes_only_what_is_within_its_bounds():
    method = built("clip_cov", share=1.0, least=0.1, most=0.5)
    batch = loop.with_statistics(network(method), method.objective, [assemble(ITEMS)], 1.0)[0]
    with torch.no_grad():
        logp = network(method)(batch, method.objective.reads).logp[batch.completion_mask]
    credit = batch.advantage.expand(batch.completion_mask.shape)[batch.completion_mask].double()
    known = (credit - credit.mean()) * (logp - logp.mean())
    assert batch.statistics["chosen"][batch.completion_mask].tolist() == ((known > 0.1) & (known < 0.5)).tolist()


def test_entropy_left_out_is_a_weight_and_no_denominator():
    """The top half's gradient and the other half's sum to the whole's."""
    method = built("top_entropy", share=0.5)
    batch = loop.with_statistics(network(method), method.objective, [assemble(ITEMS)], 1.0)[0]
    kept = batch.statistics["top_entropy"]
    other = replace(batch, statistics={"top_entropy": batch.completion_mask & ~kept})
    every = replace(batch, statistics={"top_entropy": batch.completion_mask})

    def slope(one):
        model = network(method)
        totals = loop.denominators(method.objective, [one])
        loop.weighted_loss(method.objective(model(one, method.objective.reads), one), totals).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    torch.testing.assert_close(slope(batch) + slope(other), slope(every), rtol=1e-5, atol=1e-8)


FACTOR = {"truncate": 3.0, "mask_tokens": 0.0, "mask_geometric": 0.0, "truncate_sequence": 3.0, "mask_sequences": 0.0}


@pytest.mark.parametrize("name", FACTOR)
def test_a_correction_multiplies_the_surrogate_alone(name):
    """Every token e^2 times likelier under the trainer: above the largest weight, 3. KL and entropy keep theirs."""
    plain = {"kl": 0.1, "entropy": 0.02}
    rest = with_objective(built("grpo", **plain), surrogate="reinforce", parameters={})
    still = [replace(i, per_completion={"advantage": (0.0,) * 3}) for i in ITEMS]
    beside = step(rest, still)[1]
    surrogate = step(built("grpo", **plain), ITEMS)[1] - beside
    found = step(built("grpo", **plain, importance=3.0, correction=name), scaled_behaviour(ITEMS, 2.0))[1] - beside
    torch.testing.assert_close(found, FACTOR[name] * surrogate, rtol=1e-5, atol=1e-6)
    agreed = step(built("grpo", **plain, importance=3.0, correction=name), scaled_behaviour(ITEMS, 0.0))[1] - beside
    torch.testing.assert_close(agreed, surrogate, rtol=1e-5, atol=1e-6)


def test_decoupled_ppo_is_ppo_at_one_weight_and_the_weight_times_it_elsewhere():
    """Hilton et al. 2021: the ratio is to the trainer's weights of the rollout, the weight theirs over the sampler's,
    uncapped."""
    plain, decoupled = built("grpo", kl=0.0), built("grpo", kl=0.0, importance=WIDE)
    same(step(decoupled, scaled_behaviour(ITEMS, 0.0)), step(plain, ITEMS))
    torch.testing.assert_close(
        step(decoupled, scaled_behaviour(ITEMS, 5.0))[1], math.exp(5.0) * step(plain, ITEMS)[1], rtol=1e-5, atol=1e-5
    )


def test_the_off_policy_mask_lets_go_of_bad_answers_alone():
    """DeepSeek-V3.2: sampled at far more than the policy gives them now, bad answers are left out, good ones are not."""
    masked, plain = built("grpo", kl=0.0, off_policy_mask=0.5), built("grpo", kl=0.0)
    told = scaled_behaviour(ITEMS, -50.0)
    good = [replace(i, per_completion={"advantage": (1.0, 0.5, 2.0)}) for i in told]
    bad = [replace(i, per_completion={"advantage": (-1.0, -0.5, -2.0)}) for i in told]
    same(step(masked, good), step(plain, good))
    assert (step(masked, bad)[1] == 0).all()
    near = scaled_behaviour([replace(i, per_completion={"advantage": (-1.0,) * 3}) for i in ITEMS], 50.0)
    same(step(masked, near), step(plain, near))


def test_tokens_of_a_loss_per_answer_have_no_weights():
    with pytest.raises(UserError, match="mask_tokens"):
        PolicyGradient(surrogate="sequence_clipped", correction="mask_tokens")
    with pytest.raises(UserError, match="unknown correction"):
        built("grpo", correction="mask_token")


def test_dppo_takes_its_ratio_to_the_sampler():
    """No recomputed log-probs of the rollout are asked for; the distance by KL is another surrogate."""
    assert "old_logp" not in built("dppo").objective.needs
    assert built("dppo", distance="kl").objective.surrogate == "dppo_kl"
