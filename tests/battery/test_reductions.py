"""Every `reduces to` of a docstring, as equal loss and equal gradient of a whole optimizer step on the tiny network."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from evenhand import methods
from evenhand.core import credit, kl_control
from evenhand.errors import UserError
from evenhand.objectives import Combined, Likelihood, Pairwise, PolicyGradient, Transport
from evenhand.stages.offline import labelled
from evenhand.train.examples import Example, micro_batches, split_zero_advantage
from evenhand.types import Tokens
from tests.battery.world import gradients, items_for, logps_of, network, same

WIDE = 1e9
"""A clip range that never clips."""


def built(name: str, **parameters):
    return methods.build(name, parameters, steps=6, max_tokens=8)


def step(method, items):
    return gradients(method, micro_batches(items, 60))


def with_objective(method, **changes):
    return replace(method, objective=replace(method.objective, **changes))


def one_token(items: list[Example]) -> list[Example]:
    """The items with every completion cut to its first token, which counts."""
    return [
        replace(
            i,
            tokens=replace(i.tokens, completions=tuple(Tokens(ids=c.ids[:1], mask=(True,)) for c in i.tokens.completions)),
            per_token={k: tuple(row[:1] for row in rows) for k, rows in i.per_token.items()},
        )
        for i in items
    ]


def on_policy(items: list[Example]) -> list[Example]:
    """The items without old log-probs: the objective then takes the policy's own, ratio 1."""
    return [replace(i, per_token={k: v for k, v in i.per_token.items() if k != "old_logp"}) for i in items]


def uncut(items: list[Example]) -> list[Example]:
    """The items with every token counted."""
    return [
        replace(
            i,
            tokens=replace(i.tokens, completions=tuple(replace(c, mask=(True,) * len(c.ids)) for c in i.tokens.completions)),
        )
        for i in items
    ]


# ---- preference losses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("cdpo", {"flip": 0.0}), ("robust_dpo", {"flip": 0.0}), ("rpo", {"likelihood": 0.0}), ("r_dpo", {"alpha": 0.0})],
)
def test_reduces_to_dpo(name, parameters):
    dpo, items = built("dpo"), items_for(built("dpo"))
    same(step(built(name, **parameters), items), step(dpo, items))
    different = gradients(built(name), micro_batches(items, 60))[1] - step(dpo, items)[1]
    assert different.abs().max() > 1e-5, "at its default it is another loss"


@pytest.mark.parametrize("name", ["aot", "aot_paired"])
def test_aot_of_one_pair_is_dpo(name):
    items = items_for(built("dpo"), prompts=1)
    same(step(built(name), items), step(built("dpo"), items))
    several = items_for(built("dpo"))
    assert (step(built(name), several)[1] - step(built("dpo"), several)[1]).abs().max() > 1e-5


def test_transport_never_exceeds_dpo():
    """Sorted matching is optimal for a convex cost: no pairing of the same answers costs less."""
    items = items_for(built("dpo"))
    assert step(built("aot"), items)[0] <= step(built("dpo"), items)[0]


def test_local_is_dpo_against_a_reference_of_zeros():
    items = items_for(built("dpo"))
    zeros = [replace(i, per_token={"ref_logp": tuple(0 * r for r in i.per_token["ref_logp"])}) for i in items]
    same(step(built("local_reward_model", beta=0.1), items), step(built("dpo", beta=0.1), zeros))


def test_simpo_of_one_token_without_margin_is_local():
    items = one_token(items_for(built("simpo")))
    same(step(built("simpo", beta=2.0, margin=0.0), items), step(built("local_reward_model", beta=2.0), items))


def test_ipo_mean_of_one_token_is_ipo():
    items = one_token(items_for(built("ipo")))
    same(step(built("ipo_mean", tau=0.3), items), step(built("ipo", tau=0.3), items))


def test_orpo_without_likelihood_is_its_odds_term():
    items = items_for(built("orpo"))
    whole = built("orpo", weight=0.7).objective
    odds_only = replace(built("orpo"), objective=Combined(objectives=whole.objectives, coefficients=(0.0, 1.0)))
    same(step(odds_only, items), step(built("orpo_odds"), items))


def test_combined_is_the_weighted_sum_of_its_parts():
    items, parts = items_for(built("dpo")), (Pairwise(), Likelihood(on="chosen"))
    one, two = (step(replace(built("dpo"), objective=part), items) for part in parts)
    whole = step(replace(built("dpo"), objective=Combined(objectives=parts, coefficients=(0.5, 2.0))), items)
    same(whole, (0.5 * one[0] + 2.0 * two[0], 0.5 * one[1] + 2.0 * two[1]))


def test_kto_at_the_reference_costs_half():
    """policy == reference and z0 = 0: every answer costs half its weight, whatever its label."""
    kto = built("kto", weight_desirable=1.0, weight_undesirable=1.0)
    items = items_for(kto)
    model = network(kto)
    rows = logps_of(model, items)
    own = [replace(i, per_token={"ref_logp": r}) for i, r in zip(items, rows, strict=True)]
    torch.testing.assert_close(step(kto, own)[0], torch.tensor(0.5, dtype=torch.float64), rtol=1e-6, atol=0)


def test_reference_level_cancels_in_pairs():
    """A constant per prompt added to both reference log-probs leaves DPO and both AOT forms of one pair alone."""
    items = items_for(built("dpo"))
    shifted = [
        replace(i, per_token={"ref_logp": tuple(torch.cat([r[:1] + 3.0 * n, r[1:]]) for r in i.per_token["ref_logp"])})
        for n, i in enumerate(uncut(items))
    ]
    same(step(built("dpo"), shifted), step(built("dpo"), uncut(items)))
    for name in ("aot", "aot_paired"):
        same(step(built(name), shifted[1:2]), step(built(name), uncut(items)[1:2]))


# ---- likelihood -----------------------------------------------------------------------------------------------------------


def test_sft_reductions_agree_at_equal_lengths_only():
    items = items_for(built("sft"))
    token, sequence = built("sft"), built("sft", reduce="sequence_mean")
    same(step(token, one_token(items)), step(sequence, one_token(items)))
    assert (step(token, items)[1] - step(sequence, items)[1]).abs().max() > 1e-4


def test_sft_is_cross_entropy_of_the_plain_padded_model():
    """Against transformers itself: prompt and completion in a row, right-padded, labels -100 elsewhere."""
    items, method = items_for(built("sft")), built("sft")
    rows = [(i.tokens.prompt, c) for i in items for c in i.tokens.completions]
    width = max(len(p) + len(c.ids) for p, c in rows)
    ids, labels, attention = (torch.full((len(rows), width), fill) for fill in (0, -100, 0))
    for n, (prompt, completion) in enumerate(rows):
        stop = len(prompt) + len(completion.ids)
        ids[n, :stop] = torch.tensor(prompt + completion.ids)
        attention[n, :stop] = 1
        counted = torch.tensor(completion.mask)
        labels[n, len(prompt) : stop] = torch.where(counted, torch.tensor(completion.ids), -100)
    plain = network(method)
    logits = plain.hf(input_ids=ids, attention_mask=attention).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
    loss.backward()
    grads = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in plain.parameters()])
    same(step(method, items), (loss.detach(), grads))


def test_raft_learns_by_the_objective_of_sft():
    """What it keeps is tested in `test_by_hand`."""
    assert built("raft").objective == built("sft").objective == Likelihood(reduce="token_mean", on="all")


# ---- policy gradients -----------------------------------------------------------------------------------------------------


def test_dr_grpo_is_rloo_times_a_factor():
    """On-policy: centred = (G - 1) / G leave-one-out, and a sum over L instead of a sum: factor (G - 1) / (G L)."""
    size, length = 3, 8
    dr_grpo, rloo = built("dr_grpo"), built("rloo", kl=0.0)
    items = on_policy(items_for(built("grpo")))  # whose KL in the loss keeps every completion alive
    reward = torch.tensor([[1.0, 0.0, 2.5], [0.3, 0.1, 0.0], [1.0, 1.0, 0.0], [2.0, -1.0, 0.0], [0.0, 4.0, 0.1]])

    def credited(function):
        return [replace(i, per_completion={"advantage": tuple(a)}) for i, a in zip(items, function(reward).tolist(), strict=True)]

    loo = gradients(rloo, micro_batches(credited(credit.leave_one_out), 1000))
    centred = gradients(dr_grpo, micro_batches(credited(credit.centre), 1000))
    torch.testing.assert_close(centred[1], loo[1] * (size - 1) / (size * length), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("surrogate", "parameters"),
    [("clipped", {"low": 0.2, "high": 0.2}), ("gspo", {"low": 0.2, "high": 0.2}), ("cispo", {"low": 1.0, "high": 4.0})],
)
@pytest.mark.parametrize("reduce", ["token_mean", "sequence_mean", "sequence_sum", "constant:9"])
def test_on_policy_gradient_is_reinforce(surrogate, parameters, reduce):
    """At ratio 1, and with one reduction, every surrogate has the gradient -A grad logp. GSPO spreads it evenly over tokens."""
    base = built("grpo", kl=0.0)
    items = on_policy(items_for(base))
    items = one_token(items) if surrogate == "gspo" and reduce != "sequence_mean" else items
    plain = replace(base, objective=PolicyGradient(surrogate="reinforce", reduce=reduce))
    other = replace(base, objective=PolicyGradient(surrogate=surrogate, parameters=parameters, reduce=reduce))
    torch.testing.assert_close(step(other, items)[1], step(plain, items)[1], rtol=1e-6, atol=1e-9)


def test_reinforce_with_a_value_is_ppo_without_clip_and_lam():
    """One update at ratio 1: the same advantages (reward-to-go less the value), the same plain squares for the value."""
    value = built("reinforce", baseline="value")
    items = on_policy(items_for(value))
    ppo = with_objective(built("ppo", clip=WIDE, value_clip=WIDE), reduce="sequence_sum")
    torch.testing.assert_close(step(value, items)[1], step(ppo, items)[1], rtol=1e-5, atol=1e-7)
    assert (step(value, items)[1] - step(with_objective(value, value=0.2), items)[1]).abs().max() > 1e-4


def scaled_behaviour(items: list[Example], shift: float) -> list[Example]:
    """The items as if every token had been sampled with log-prob old - shift."""
    return [
        replace(i, per_token={**i.per_token, "behaviour_logp": tuple(row - shift for row in i.per_token["old_logp"])})
        for i in items
    ]


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "gspo", "cispo", "reinforce", "rloo", "rank_advantage", "ppo"])
def test_importance_multiplies_the_surrogate_and_is_capped(name):
    """One constant log-ratio at every token: the policy's part is multiplied by min(e^shift, cap), KL and value are not."""
    settings = {"kl": 0.0} if name in ("grpo", "reinforce", "rloo", "rank_advantage", "ppo") else {}
    plain, corrected = built(name, **settings), built(name, **settings, importance=2.0)
    items = items_for(built("ppo") if name == "ppo" else built("grpo"))
    value_only = with_objective(plain, surrogate="reinforce", parameters={})
    still = [replace(i, per_token={**i.per_token, "token_advantage": tuple(0 * r for r in i.per_token["value"])}) for i in items]
    rest = step(value_only, still)[1] if name == "ppo" else 0.0  # the value loss alone
    surrogate = step(plain, items)[1] - rest
    for shift, weight in ((0.0, 1.0), (-1.0, math.exp(-1.0)), (0.5, math.exp(0.5)), (3.0, 2.0)):
        found = step(corrected, scaled_behaviour(items, shift))[1] - rest
        torch.testing.assert_close(found, weight * surrogate, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["reinforce", "ppo", "rloo", "rank_advantage", "grpo", "dr_grpo", "dapo", "gspo", "cispo"])
def test_entropy_is_a_term_of_its_own(name):
    """Twice the coefficient, twice the difference: it neither scales the surrogate nor is divided with it."""
    items = items_for(built("ppo") if name == "ppo" else built("grpo"))
    none, some, twice = (step(built(name, entropy=c), items)[1] for c in (0.0, 1.0, 2.0))
    assert (some - none).abs().max() > 1e-3
    torch.testing.assert_close(twice - none, 2 * (some - none), rtol=1e-5, atol=1e-6)
    assert not built(name, entropy=0.01).skips_zero_advantage


def test_dual_clip_bounds_bad_tokens_alone():
    """ratio above the cap: a bad token has no gradient left, a good one keeps PPO's own rule."""
    grpo, dual = built("grpo", kl=0.0), built("grpo", kl=0.0, dual_clip=3.0)
    far = [
        replace(i, per_token={**i.per_token, "old_logp": tuple(r - 20.0 for r in i.per_token["old_logp"])})
        for i in items_for(built("grpo"))
    ]
    bad = [replace(i, per_completion={"advantage": (-1.0,) * 3}) for i in far]
    assert step(grpo, bad)[1].abs().max() > 0
    assert (step(dual, bad)[1] == 0).all()
    good = [replace(i, per_completion={"advantage": (1.0,) * 3}) for i in items_for(built("grpo"))]
    same(step(dual, good), step(grpo, good))


def test_dpo_at_a_temperature_is_dpo_of_the_divided_logits():
    """Against log-probs of logits / T computed by hand from the plain model, for policy and reference alike."""
    items, temperature = items_for(built("dpo")), 0.5
    model = network(built("dpo"))
    with torch.no_grad():
        rows = logps_of(model, items, temperature=temperature)
    margins = []
    for item, row in zip(items, rows, strict=True):
        ratio = [
            float(((own - ref) * torch.tensor(c.mask)).sum())
            for own, ref, c in zip(row, item.per_token["ref_logp"], item.tokens.completions, strict=True)
        ]
        margins += [ratio[i] - ratio[j] for i, j in item.pairs]
    known = sum(math.log1p(math.exp(-0.1 * m)) for m in margins) / len(margins)
    method = built("dpo", beta=0.1, temperature=temperature)
    found = gradients(method, micro_batches(items, 60), method.logit_temperature(1.0))
    assert float(found[0]) == pytest.approx(known, rel=1e-6)
    assert built("dpo").logit_temperature(0.7) == 1.0, "the sampler's temperature is no matter of fixed data"


def test_rloo_on_given_pairs_is_slic_that_never_stops():
    """Rewards 1 and 0 give advantages +1 and -1: half of SLiC's gradient under a margin that is never reached, without an end."""
    pairs = items_for(built("slic"))
    method = built("slic", margin=1e6, likelihood=0.0)
    reward = torch.tensor([i.tokens.group.scores for i in pairs])
    advantage = credit.leave_one_out(reward).tolist()
    rollouts = [replace(i, pairs=(), per_completion={"advantage": tuple(a)}) for i, a in zip(pairs, advantage, strict=True)]
    torch.testing.assert_close(step(built("rloo", kl=0.0), rollouts)[1], step(method, pairs)[1] / 2, rtol=1e-5, atol=1e-7)


def test_gspo_of_one_token_is_grpo():
    """Off-policy too: one token's geometric-mean ratio is its ratio."""
    grpo, gspo = built("grpo", kl=0.0, low=0.1, high=0.3), built("gspo", low=0.1, high=0.3)
    items = one_token(items_for(grpo))
    same(step(gspo, items), step(grpo, items))


def test_dual_clip_without_a_cap_is_clipped():
    ppo, items = built("ppo"), items_for(built("ppo"))
    dual = with_objective(ppo, surrogate="dual_clipped", parameters={"low": 0.2, "high": 0.2, "cap": WIDE})
    same(step(dual, items), step(ppo, items))


def test_ppo_reduces_to_reinforce_with_reward_to_go():
    """No clipping, lam = 1, V = 0: GAE is the reward-to-go, and the first update has ratio 1. Whitening is left out by hand."""
    score, beta = torch.tensor([1.0, -0.5, 2.0, 0.3, 0.7]), 0.1
    base = built("ppo", clip=WIDE, lam=1.0, value=0.1)
    items = [replace(i.only([0]), per_token={k: (v[0],) for k, v in i.per_token.items()}) for i in items_for(base)]
    togo, generalised = [], []
    for item, reward in zip(items, score, strict=True):
        mask = torch.tensor([item.tokens.completions[0].mask])
        old, ref = item.per_token["old_logp"][0], item.per_token["ref_logp"][0]
        rewards = [-beta * float(o - r) if m else 0.0 for o, r, m in zip(old, ref, mask[0], strict=True)]
        rewards[int(mask[0].nonzero().max())] += float(reward)
        by_hand = torch.tensor([sum(rewards[t:]) for t in range(len(rewards))])
        shaped = kl_control.token_rewards(reward.reshape(1), old[None], ref[None], mask, beta=beta)
        found, _ = credit.gae(shaped, torch.zeros_like(shaped), mask, gamma=1.0, lam=1.0)
        togo.append(replace(item, per_token={"token_advantage": (by_hand,)}))
        generalised.append(replace(item, per_token={"token_advantage": (found[0],)}))
    ppo = with_objective(base, value=0.0, reduce="sequence_sum")
    reinforce = replace(base, objective=PolicyGradient(surrogate="reinforce", reduce="sequence_sum"))
    torch.testing.assert_close(step(ppo, generalised)[1], step(reinforce, togo)[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in methods.METHODS if built(n).skips_zero_advantage])
def test_skipping_zero_advantages_is_exact(name):
    """The same loss and gradient whether completions without advantage are run or only counted."""
    method = built(name)
    run_all = [
        replace(i, per_completion={"advantage": (0.0, *i.per_completion["advantage"][1:])}) for i in items_for(built("grpo"))
    ]
    skipped = [piece for i in run_all for piece in split_zero_advantage(i)]
    assert sum(i.denominator_only for i in skipped) == len(run_all)
    same(step(method, skipped), step(method, run_all))


def test_kl_in_the_loss_forbids_skipping():
    assert not built("grpo").skips_zero_advantage
    assert not built("ppo").skips_zero_advantage
    assert built("reinforce").skips_zero_advantage  # its KL is in the reward, and so in the advantage


def test_grpo_ignores_shift_and_scale_of_rewards():
    """Up to eps = 1e-4 beside the deviation."""
    reward = torch.tensor([[1.0, 0.0, 2.5, 1.5]])
    torch.testing.assert_close(credit.standardise(7.0 * reward - 3.0), credit.standardise(reward), rtol=2e-4, atol=0)


# ---- TOPR -----------------------------------------------------------------------------------------------------------------


def topr_items(advantage: float, behaviour_shift: float) -> list[Example]:
    """Completions whose behaviour log-prob is the policy's own plus a shift."""
    method = built("topr_online")
    items = uncut(items_for(built("grpo")))
    rows = logps_of(network(method), items)
    return [
        replace(
            i,
            per_token={"behaviour_logp": tuple(r + behaviour_shift for r in row)},
            per_completion={"advantage": (advantage,) * len(row)},
        )
        for i, row in zip(items, rows, strict=True)
    ]


def reinforce_of(items):
    plain = replace(built("topr_online"), objective=PolicyGradient(surrogate="reinforce", reduce="sequence_sum"))
    return step(plain, items)


def test_topr_imitates_good_answers_whoever_wrote_them():
    """alpha = 1 for A >= 0, whatever the ratio."""
    for shift in (-2.0, 0.0, 2.0):
        items = topr_items(0.7, shift)
        same(step(built("topr_online"), items), reinforce_of(items))


def test_topr_is_reinforce_on_bad_answers_it_overrates():
    items = topr_items(-0.7, -1.0)  # ratio above 1: alpha is capped at 1
    same(step(built("topr_online"), items), reinforce_of(items))


def test_topr_lets_go_of_bad_answers_it_no_longer_gives():
    gone = topr_items(-0.7, 1000.0)
    assert (step(built("topr_online"), gone)[1] == 0).all()
    fading = step(built("topr_online"), topr_items(-0.7, 0.5))[1].norm()
    assert 0 < fading < reinforce_of(topr_items(-0.7, 0.5))[1].norm()


def test_topr_s_limits_hold_the_ratio_on_both_sides():
    """All at 1: no correction. A least weight of 1/4: a quarter of REINFORCE's gradient where the ratio is 0. Good ones too."""
    gone, better = topr_items(-0.7, 1000.0), topr_items(0.7, 1000.0)
    even = built("topr_online", low=1.0, high=1.0)
    same(step(even, gone), reinforce_of(gone))
    quarter = step(built("topr_online", low=0.25), gone)[1]
    torch.testing.assert_close(quarter, 0.25 * reinforce_of(gone)[1])
    assert (step(built("topr_online", good_low=0.0), better)[1] == 0).all()
    doubled = step(built("topr_online", high=2.0), topr_items(-0.7, -1000.0))[1]
    torch.testing.assert_close(doubled, 2.0 * reinforce_of(topr_items(-0.7, -1000.0))[1])


@pytest.mark.parametrize("limits", [{"low": 2.0}, {"low": -1.0}, {"high": 0.0}, {"good_low": 1.5}])
def test_limits_that_hold_nothing_are_refused(limits):
    with pytest.raises(UserError, match="limit above it"):
        built("topr", **limits)


def test_offline_reinforce_is_leave_one_out_on_pairs():
    """Both answers of a pair, labelled +1 and -1: the leave-one-out advantages of rewards 1 and 0."""
    pairs = items_for(built("dpo"))
    assert credit.leave_one_out(torch.tensor([[1.0, 0.0]])).tolist() == [[1.0, -1.0]]
    both = [replace(i, per_completion={"advantage": (1.0, -1.0)}) for i in pairs]
    label = [replace(i, tokens=replace(i.tokens, group=replace(i.tokens.group, scores=(1.0, 0.0)))) for i in pairs]
    same(
        step(built("offline_reinforce"), [labelled(i, built("offline_reinforce")) for i in label]),
        step(built("rloo", kl=0.0), both),
    )


def test_topr_offline_labels_become_signed_advantages():
    method = built("topr", baseline=0.6)
    for item in items_for(method):
        for score, advantage in zip(item.tokens.group.scores, item.per_completion["advantage"], strict=True):
            assert advantage == pytest.approx(0.4 if score > 0 else -1.6)


def test_transport_forms_are_the_registered_ones():
    assert built("aot").objective == Transport(form="unpaired")
    assert built("aot_paired").objective == Transport(form="paired")
