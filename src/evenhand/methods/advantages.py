"""Policy gradients that differ in the advantage: what is taken off the reward of an answer, and what divides it.

All are on-policy, one update per rollout, but for those that clip. Any of these credits that compares answers goes into GRPO's
surrogate too: `grpo` with `advantage: maxrl`. `importance` caps the weight that corrects a sampler unlike the trainer (2 is
usual)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evenhand.errors import UserError, one_of
from evenhand.methods import strengths
from evenhand.methods.gradients import gradient
from evenhand.objectives import Combined, Likelihood, PolicyGradient
from evenhand.train.method import Method, method
from evenhand.train.rollouts import Credit, Rollouts, Schedule
from evenhand.train.rollouts import published_credits as credits


def _score_function(
    credit: Credit, completions: int, importance: float, *, reduce: str = "sequence_sum", kl: float = 0.0
) -> Method:
    """`-A log pi` on fresh samples; a KL is taken off the reward."""
    objective = PolicyGradient(surrogate="reinforce", reduce=reduce, importance=importance)
    return gradient(objective, Rollouts(completions_per_prompt=completions, credit=credit), kl=kl)


def _clipped(
    credit: Credit, completions: int, importance: float, *, low: float, high: float, updates: int, reduce: str, **kl
) -> Method:
    objective = PolicyGradient(surrogate="clipped", parameters={"low": low, "high": high}, reduce=reduce, importance=importance)
    return gradient(objective, Rollouts(completions_per_prompt=completions, credit=credit, schedule=Schedule(updates)), **kl)


@method(
    space=strengths.KL,
    of="reinforce",
    differs="KL per token, whitened over the step",
    elsewhere={"TRL": "~", "OpenRLHF": "~", "verl": "reinforce++"},
)
def reinforce_pp(
    *, completions_per_prompt: int = 1, kl: float = 0.01, clip: float = 0.2, updates: int = 1, importance: float = 0.0
) -> Method:
    """REINFORCE++: the reward-to-go of every token, KL per token in it, whitened over all tokens of the rollout; PPO's clip
    without a critic (Hu et al. 2025, arXiv:2501.03262).

    One answer per prompt is enough, since prompts are the baseline of each other: a hard prompt's answers are all pushed down.
    Some codes subtract the KL of the token alone instead of the sum from there on, which ignores what a token leads to.
    Reduces to `reinforce` with the mean of the rollout as baseline, over the deviation, at kl = 0 and ratio 1."""
    return _clipped(
        credits.TokenReturn(),
        completions_per_prompt,
        importance,
        low=clip,
        high=clip,
        updates=updates,
        reduce="token_mean",
        kl=kl,
    )


@method(
    space={"kl": (0.0, 0.001, 0.01, 0.1)},
    of="reinforce_pp",
    differs="the group's mean off first",
    elsewhere={"OpenRLHF": "yes", "verl": "yes"},
)
def reinforce_pp_baseline(
    *, completions_per_prompt: int = 8, kl: float = 0.001, clip: float = 0.2, updates: int = 1, importance: float = 0.0
) -> Method:
    """REINFORCE++ with the group's mean as baseline, whitened over all tokens of the rollout; k2 in the loss (Hu et al. 2025,
    arXiv:2501.03262). No deviation per group: a prompt with one odd answer weighs no more than others.
    Reduces to `dapo` but for the deviation, its clip and the refilling, at kl = 0."""
    return _clipped(
        credits.reinforce_pp_baseline, completions_per_prompt, importance, low=clip, high=clip, updates=updates,
        reduce="token_mean", kl=kl, kl_estimator="k2", kl_in="loss",
    )  # fmt: skip


@method(space=strengths.KL, of="reinforce", differs="the greedy answer as baseline", elsewhere={"verl": "remax"})
def remax(*, completions_per_prompt: int = 1, kl: float = 0.05, importance: float = 0.0) -> Method:
    """REINFORCE with the reward of the prompt's greedy answer as baseline, KL in the reward (Li et al. 2023, arXiv:2310.10505).

    That answer is sampled and scored for every prompt beside the others and counted in the ledger: at one completion per prompt
    half of what is generated is not learned from. It is no baseline where the greedy answer cannot be scored.
    Reduces to `reinforce` with another baseline: unbiased for any number of completions."""
    return _score_function(credits.AgainstGreedy(), completions_per_prompt, importance, kl=kl)


@method(of="rloo", differs="a mean weighted by length", elsewhere={"verl": "opo"})
def opo(*, completions_per_prompt: int = 8, importance: float = 0.0) -> Method:
    """On-policy RL with the optimal baseline: the group's mean weighted by length, neither KL nor clip nor deviation (Hao et al.
    2025, arXiv:2505.23585). The baseline includes the answer itself, as GRPO's does: a bias of 1/G.
    Reduces to `rloo` without KL, times (G - 1) / G, for answers of equal length."""
    return _score_function(credits.opo, completions_per_prompt, importance)


@method(space=strengths.KL)
def optimal_token(*, completions_per_prompt: int = 8, kl: float = 0.0, importance: float = 0.0) -> Method:
    """The optimal token baseline: at every token the group's reward-to-go, weighted by how long each answer's score has grown
    so far, is taken off (verl's `optimal_token_baseline`, 2025). A sure token adds nothing to the weight, a surprising one up
    to 2.

    Reads the whole vocabulary once per rollout, for sum_v p_v^2. The baseline includes the answer itself, and an answer that is
    alone at a token learns nothing from it. `grpo` takes it as `advantage` too.
    Reduces to `rloo` times (G - 1) / G, where all weights are alike."""
    return _score_function(credits.OptimalToken(), completions_per_prompt, importance, kl=kl)


@method(of="rloo", differs="flat groups rescaled away", elsewhere={"verl": "~gpg, other scale"})
def gpg(*, completions_per_prompt: int = 8, importance: float = 0.0) -> Method:
    """Group policy gradient: centred rewards over the share of answers in groups that are not flat, every token alike (Chu et al.
    2025, arXiv:2504.02546). Without that factor a rollout of easy prompts has small gradients.
    Reduces to `reinforce` with centred rewards over mean token log-probs, where no group is flat."""
    return _score_function(credits.gpg, completions_per_prompt, importance, reduce="token_mean")


@method(of="rloo", differs="divided by the group's mean")
def maxrl(*, completions_per_prompt: int = 16, importance: float = 0.0) -> Method:
    """Maximum-likelihood reinforcement learning: centred rewards over the group's mean (Tajwar et al. 2026). For rewards of 0 and
    1; a negative reward is refused. With many completions it climbs the log of the probability of being right, so that hard
    prompts, rarely right, weigh most.
    Reduces to `rloo` without KL, over the group's mean reward, times (G - 1) / G."""
    return _score_function(credits.maxrl, completions_per_prompt, importance)


@method(space={"k": (2, 4, 8)}, of="rloo", differs="credit for pass@k", elsewhere={"verl": "~divided by the deviation"})
def pass_at_k(*, completions_per_prompt: int = 8, k: int = 4, baseline: str = "leave_one_out", importance: float = 0.0) -> Method:
    """The gradient of the best of k answers, from all k-subsets of the group: pass@k for rewards 0 and 1, max@k for others
    (Walder and Karkhanis 2025, PKPO, arXiv:2505.15201).

    `baseline` leave_one_out takes off the best of the k - 1 others (a wrong answer then gets 0), `none` nothing: either is
    exactly unbiased. Once one answer in k is right nearly always, nothing is left to climb: anneal k to 1 for the single
    answer. Reduces to `reinforce` without a baseline at k = 1; to `max_minus_second` at k = G, but for a factor G."""
    names = {"leave_one_out": "pass_at_k", "none": "pass_at_k_inclusive"}
    name = names[one_of("baseline", baseline, names, where="pass_at_k")]
    return _score_function(_best_of(name, k, completions_per_prompt), completions_per_prompt, importance)


@method(space={"k": (2, 4, 8)}, of="grpo", differs="credit for pass@k")
def pass_at_k_training(*, completions_per_prompt: int = 8, k: int = 4, importance: float = 0.0) -> Method:
    """Pass@k training: an answer is credited with the share of its k-subsets that hold a right one, as a z-score (Chen et al.
    2025, arXiv:2508.10751). For rewards of 0 and 1.

    Biased: without the deviation it is (n - k) / k times the gradient of pass@k, nothing at k = n.
    Reduces to `grpo` with the population's deviation and without KL at k = 1, but for the sum over tokens."""
    return _score_function(_best_of("pass_at_k_z", k, completions_per_prompt), completions_per_prompt, importance)


def _best_of(name: str, k: int, completions: int) -> Credit:
    if not 1 <= k <= completions:
        raise UserError(f"the best of {k} of {completions} answers", where="pass_at_k", fix=f"use `k` from 1 to {completions}")
    return credits.BestOfK(name, credits.BEST_OF_K[name], k)


@method(of="rloo", differs="the best answer alone, against the second", elsewhere={"verl": "~divided by the deviation"})
def max_minus_second(*, completions_per_prompt: int = 4, importance: float = 0.0) -> Method:
    """The best answer of each group is credited with what it has over the second best, the others with nothing: the gradient of
    the expected maximum over the whole group (Tang et al. 2025, arXiv:2503.19595).

    Few answers per prompt: with many, the two best tie, and nothing is learned.
    Reduces to `pass_at_k` at k = G, over G."""
    return _score_function(credits.max_minus_second, completions_per_prompt, importance)


@method(of="grpo", differs="each reward's own z-score", elsewhere={"TRL": "normalize_then_sum", "verl": "gdpo"})
def gdpo(
    *, completions_per_prompt: int = 8, weights: Mapping[str, float] | None = None, low: float = 0.2, high: float = 0.2,
    updates: int = 1, kl: float = 0.0, importance: float = 0.0,
) -> Method:  # fmt: skip
    """Group-decoupled normalisation for several rewards: each is z-scored in its group, then summed by `weights` and whitened
    over the rollout; token clip, k3 in the loss (2026, arXiv:2601.05242).

    `weights` by the names of a reward's parts, as `weighted` has them (a reward's own weights are not used); without them every
    part counts 1. The z-score of a sum, GRPO's, would give two answers of one sum one advantage, whatever each is good at.
    Reduces to `grpo` with one reward, but for the whitening."""
    return _clipped(
        credits.Decoupled(weights or {}), completions_per_prompt, importance, low=low, high=high, updates=updates,
        reduce="sequence_mean", kl=kl, kl_estimator="k3", kl_in="loss",
    )  # fmt: skip


@method(of="grpo", differs="the deviation of the whole batch", elsewhere={"TRL": "scale_rewards: batch"})
def lite_ppo(
    *, completions_per_prompt: int = 8, low: float = 0.2, high: float = 0.2, updates: int = 1, importance: float = 0.0
) -> Method:
    """Lite PPO: the group's mean, the deviation of the whole rollout, every token alike, PPO's clip without a critic (Liu et al.
    2025, arXiv:2508.08221). `grpo` with `advantage: batch_deviation` has the mean of sequence means instead.
    Reduces to `grpo` without KL for a rollout of one prompt, but for the token mean."""
    return _clipped(
        credits.batch_deviation, completions_per_prompt, importance, low=low, high=high, updates=updates, reduce="token_mean"
    )


@method(of="ppo", differs="lambda by length")
def vapo(
    *, completions_per_prompt: int = 8, alpha: float = 0.05, value: float = 0.5, warmup: int = 5, likelihood: float = 0.1,
    low: float = 0.2, high: float = 0.28, updates: int = 4, importance: float = 0.0,
) -> Method:  # fmt: skip
    """Value-augmented PPO for long reasoning: a critic of its own that learns plain returns, advantages with lam = 1 - 1/(alpha
    n) for an answer of n tokens, clip-higher, the token mean, and the likelihood of rewarded answers (Yue et al. 2025,
    arXiv:2504.05118).

    In the first `warmup` rollouts the critic learns alone (the paper: 50 steps). `likelihood` weighs the imitation of answers
    whose reward is above 0: right ones, where a reward says 1 and 0 or 1 and -1. An answer of 1/alpha tokens or fewer has lam =
    0. Reduces to `ppo` at lam = 1 without a KL and with `critic: separate` as alpha n grows, at likelihood and warmup 0."""
    rollouts = Rollouts(
        completions_per_prompt=completions_per_prompt, schedule=Schedule(updates),
        credit=credits.LengthAdaptiveGae(alpha=alpha, warmup=warmup),
    )  # fmt: skip
    objective = PolicyGradient(
        surrogate="clipped", parameters={"low": low, "high": high}, reduce="token_mean", value=value, importance=importance,
        value_clip=float("inf"),
    )  # fmt: skip
    made = gradient(objective, rollouts, network="critic")
    if not likelihood:
        return made
    parts = Combined(objectives=(objective, Likelihood(on="rewarded")), coefficients=(1.0, likelihood))
    return replace(made, objective=parts)
