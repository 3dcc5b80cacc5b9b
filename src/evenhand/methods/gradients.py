"""Policy gradients on rollouts: who is credited how, under which ratio and reduction, with the KL where. More in `groups`."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

from evenhand.core.corrections import CORRECTIONS, TRUNCATIONS
from evenhand.errors import UserError, one_of
from evenhand.methods import strengths
from evenhand.methods.ratio_limits import ratio_limits
from evenhand.objectives import PolicyGradient
from evenhand.train.method import PROMPTS, Method, method
from evenhand.train.policies import INITIAL_POLICY, NONE
from evenhand.train.rollouts import Credit, KlPenalty, Rollouts, Schedule, Truncation, credits
from evenhand.types import Head


def gradient(
    objective: PolicyGradient,
    rollouts: Rollouts,
    *,
    kl: float = 0.0,
    kl_estimator: str = "k1",
    kl_in: str = "reward",
    network: str = "policy",
) -> Method:
    """The method with its KL in its place: off the reward before the credit, or beside the surrogate in the loss.

    Without a KL its place and estimator are checked and then left out: no two methods differ in what neither computes.
    """
    if one_of("place", kl_in, ("reward", "loss"), where="kl_in") == "reward":
        penalty = replace(rollouts.kl, coefficient=kl, estimator=kl_estimator)
        rollouts = replace(rollouts, kl=penalty) if kl else rollouts
    else:
        beside = replace(objective, kl=kl, kl_estimator=kl_estimator)
        objective = beside if kl else objective
    frozen = INITIAL_POLICY if kl else NONE
    return Method(objective=objective, data=PROMPTS, rollouts=rollouts, reference=frozen, network=network, learning_rate=1e-6)


def whole_epochs(method: str, updates: int, epochs: int) -> None:
    if updates % epochs:
        why = "a rollout holds updates / epochs steps' worth of prompts, and every epoch passes over all of them"
        raise UserError(f"{updates} updates are no whole number of {epochs} epochs", where=method, why=why,
                        fix=f"use `updates: {epochs * max(1, updates // epochs)}`, or `epochs: 1`")  # fmt: skip


def renewed(method: str, schedule: Schedule, importance: float) -> Schedule:
    """The schedule, refused where a proximal policy is renewed and nothing remembers who sampled."""
    if schedule.renew and not importance:
        why = "after a renewal the ratio no longer tells how far the policy is from the one that sampled"
        raise UserError("`renew` without `importance`", where=method, why=why, fix="add `importance: 1e9` (exact), or a cap")
    return schedule


def comparing(name: str, completions: int, *, where: str) -> Credit:
    """The credit of that name, one that compares the answers to a prompt, of which there are so many."""
    known = {name: credit for name, credit in credits.CREDITS.items() if credit.compares}
    found = known[one_of("advantage", name, known, where=where)]
    if completions < found.least:
        raise UserError(f"{completions} completions per prompt under `advantage: {name}`", where=where,
                        why=f"with fewer than {found.least} nothing is learned", fix=f"use at least {found.least}")  # fmt: skip
    return found


def limited(surrogate: str, low: float, high: float, **more: float) -> dict[str, Any]:
    """A surrogate of that name whose ratio has limits."""
    return {"surrogate": surrogate, "parameters": {"low": low, "high": high, **more}}


def clip_surrogate(low: float, high: float, dual_clip: float) -> dict[str, Any]:
    """The clipped surrogate; `dual_clip` c > 1 (3 is usual) also bounds what a negative advantage may cost, 0 does not."""
    return limited("dual_clipped", low, high, cap=dual_clip) if dual_clip else limited("clipped", low, high)


def mismatch(importance: float, correction: str, low: float, off_policy_mask: float) -> dict[str, Any]:
    """How an objective meets a sampler unlike the trainer, beside the largest weight; at 0 there are no weights at all, and what
    only truncates has no least one."""
    one_of("correction", correction, CORRECTIONS, where="correction")
    least = {} if correction in TRUNCATIONS else {"importance_low": low}
    weights = {"correction": correction, **least} if importance else {}
    return {**weights, "off_policy_mask": off_policy_mask}


def masked(mask_truncated: bool, truncated_in_baseline: bool) -> Truncation:
    """What becomes of answers that the limit cut; in the baseline are all that are not masked."""
    return Truncation(mask_truncated, truncated_in_baseline or not mask_truncated)


@method(space=strengths.KL, elsewhere={"OpenRLHF": "reinforce", "verl": "reinforce"})
def reinforce(
    *,
    completions_per_prompt: int = 4,
    baseline: str = "batch_baseline",
    kl: float = 0.05,
    entropy: float = 0.0,
    kl_estimator: str = "k1",
    value: float = 0.1,
    importance: float = 0.0,
    kl_in: str = "reward",
) -> Method:
    """REINFORCE with a baseline, KL in the reward (Williams 1992), or with `kl_in: loss` beside it.

    `baseline` is `batch_baseline`, `running_baseline`, `none`, or `value`: the reward-to-go of every token less a value head's
    estimate, which learns it by regression weighted `value` (Sutton and Barto, section 13.4).
    Reduces to `ppo` at lam = 1 and ratio 1, but for whitening and reduction, with `baseline: value`."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit=credits.CREDITS.find(baseline, where="reinforce"))
    objective = PolicyGradient(surrogate="reinforce", reduce="sequence_sum", entropy=entropy, importance=importance)
    if Head.VALUE not in rollouts.credit.reads:
        return gradient(objective, rollouts, kl=kl, kl_estimator=kl_estimator, kl_in=kl_in)
    learning = replace(objective, value=_learning("reinforce", value), value_clip=inf)
    return gradient(learning, rollouts, kl=kl, kl_estimator=kl_estimator, kl_in=kl_in, network="value")


def _learning(method: str, value: float) -> float:
    if not value > 0:
        raise UserError(f"value is {value}", where=method, why="its critic would never learn", fix="use value > 0")
    return value


@method(
    space=strengths.KL,
    of="reinforce",
    differs="a value per token, a clipped ratio",
    elsewhere={"OpenRLHF": "ppo", "verl": "ppo", "study": "ppo"},
)
def ppo(
    *,
    completions_per_prompt: int = 4,
    kl: float = 0.05,
    kl_target: float = 0.0,
    clip: float = 0.2,
    value: float = 0.1,
    value_clip: float = 0.2,
    updates: int = 4,
    epochs: int = 2,
    gamma: float = 1.0,
    lam: float = 0.95,
    entropy: float = 0.0,
    kl_estimator: str = "k1",
    dual_clip: float = 0.0,
    critic: str = "head",
    bootstrap_truncated: bool = False,
    importance: float = 0.0,
    renew: int = 0,
) -> Method:
    """PPO: value head, GAE whitened over the rollout, token clip, several epochs, KL per token in the reward, fixed or adaptive
    (Schulman et al. 2017, eq. 9; Ziegler et al. 2019).

    `critic` is a head on the policy or a `separate` network; `dual_clip` 3 bounds what a bad token may cost (Ye et al. 2020);
    with `bootstrap_truncated` an answer cut by the limit is worth its last value instead of ending there. With `renew` the policy
    that the clip is around is the current one again after so many updates, and `importance` weighs by its ratio to the policy
    that sampled: decoupled PPO (Hilton et al. 2021, arXiv:2110.00641), exact with `importance` 1e9.
    Reduces to `reinforce` with the reward-to-go at lam = 1, no clip, value 0 and one update, but for the whitening."""
    networks = {"head": "value", "separate": "critic"}
    network = networks[one_of("critic", critic, networks, where="ppo")]
    if kl_target and not kl:
        why = "the coefficient is multiplied step by step, and 0 stays 0"
        raise UserError("an adaptive KL needs a coefficient to begin with", where="ppo", why=why, fix="set `kl`, say 0.05")
    whole_epochs("ppo", updates, epochs)
    rollouts = Rollouts(
        completions_per_prompt=completions_per_prompt, kl=KlPenalty(target=kl_target),
        schedule=renewed("ppo", Schedule(updates, epochs, renew=renew), importance),
        credit=credits.Gae(gamma=gamma, lam=lam, bootstrap_truncated=bootstrap_truncated),
    )  # fmt: skip
    objective = PolicyGradient(
        **clip_surrogate(clip, clip, dual_clip), reduce="token_mean", value=_learning("ppo", value), value_clip=value_clip,
        entropy=entropy, importance=importance,
    )  # fmt: skip
    return gradient(objective, rollouts, kl=kl, kl_estimator=kl_estimator, network=network)


@method(
    space=strengths.KL,
    of="reinforce",
    differs="the others of the group as baseline",
    elsewhere={"TRL": "RLOOTrainer", "OpenRLHF": "rloo", "verl": "rloo"},
)
def rloo(
    *,
    completions_per_prompt: int = 8,
    kl: float = 0.05,
    entropy: float = 0.0,
    kl_estimator: str = "k1",
    importance: float = 0.0,
    kl_in: str = "reward",
    updates: int = 1,
    epochs: int = 1,
    clip: float = 0.2,
) -> Method:
    """REINFORCE with a leave-one-out baseline, KL in the reward (Ahmadian et al. 2024, arXiv:2402.14740). Several `updates` of a
    rollout clip the ratio of the whole answer at 1 +- `clip`, which long answers leave at once, and `importance` then weighs
    whole answers too: prefer one."""
    whole_epochs("rloo", updates, epochs)
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, schedule=Schedule(updates, epochs))
    surrogate = limited("sequence_clipped", clip, clip) if updates > 1 else {"surrogate": "reinforce"}
    objective = PolicyGradient(**surrogate, reduce="sequence_sum", entropy=entropy, importance=importance)
    return gradient(objective, rollouts, kl=kl, kl_estimator=kl_estimator, kl_in=kl_in)


@method(was="rank", space=strengths.KL, of="rloo", differs="ranks in place of rewards")
def rank_advantage(
    *,
    completions_per_prompt: int = 8,
    kl: float = 0.05,
    kl_estimator: str = "k1",
    entropy: float = 0.0,
    importance: float = 0.0,
    kl_in: str = "reward",
) -> Method:
    """RLOO with rank advantages: the mean sign against the others of the group (Shenoy and Zander 2026, eq. 7). They put it into
    GRPO's surrogate and call it RLOO: that is `grpo` with `advantage: rank`; their text describes `advantage: leave_one_out`."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit=credits.rank)
    objective = PolicyGradient(surrogate="reinforce", reduce="sequence_sum", entropy=entropy, importance=importance)
    return gradient(objective, rollouts, kl=kl, kl_estimator=kl_estimator, kl_in=kl_in)


@method(of="topr", differs="on its own samples")
def topr_online(
    *,
    completions_per_prompt: int = 8,
    baseline: float = 0.0,
    updates: int = 4,
    low: float = 0.0,
    high: float = 1.0,
    good_low: float = 1.0,
    good_high: float = 1.0,
) -> Method:
    """Tapered off-policy REINFORCE on its own earlier samples, reward minus a constant (Le Roux et al. 2025, eq. 3); the limits
    of the ratio are `topr`'s. Reduces to `reinforce` with a constant baseline on its own fresh samples."""
    rollouts = Rollouts(
        completions_per_prompt=completions_per_prompt, credit=credits.FixedBaseline(baseline), schedule=Schedule(updates)
    )
    limits = ratio_limits(low, high, good_low, good_high)
    return gradient(PolicyGradient(surrogate="topr", parameters=limits), rollouts)
