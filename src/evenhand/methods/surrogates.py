"""Policy gradients that differ in the surrogate: what becomes of a token's gradient once the policy has moved from its rollout.

All credit by the group's z-score unless `advantage` names another, hold no KL, and have one gradient on-policy, under one
reduction: they differ from the second update of a rollout on. `importance` caps the weight that corrects a sampler unlike the
trainer (2 is usual).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evenhand.errors import one_of
from evenhand.methods.gradients import comparing, gradient
from evenhand.objectives import PolicyGradient
from evenhand.train.method import DEMONSTRATIONS, Method, method
from evenhand.train.policies import DATA
from evenhand.train.rollouts import Exploration, Rollouts, Schedule


def _moved(
    surrogate: str, parameters: Mapping[str, float], reduce: str, *, completions: int, updates: int, advantage: str, **more: float
) -> Method:
    """`more` are fields of the objective."""
    credit = comparing(advantage, completions, where=surrogate)
    rollouts = Rollouts(completions_per_prompt=completions, credit=credit, schedule=Schedule(updates))
    return gradient(PolicyGradient(surrogate=surrogate, parameters=parameters, reduce=reduce, **more), rollouts)  # type: ignore[arg-type]


@method(of="grpo", differs="a geometric mean of ratios", elsewhere={"TRL": "gmpo", "verl": "gmpo"})
def gmpo(
    *, completions_per_prompt: int = 8, low: float = 0.4, high: float = 0.4, updates: int = 4, importance: float = 0.0,
    advantage: str = "standardise",
) -> Method:  # fmt: skip
    """Geometric-mean policy optimisation: the ratio of an answer is the geometric mean of its tokens' clipped ratios, so that one
    outlier does not rule it (Zhao et al. 2025, arXiv:2507.20673). The clip is in log space: 0.4 is a ratio of 0.67 to 1.49.
    Reduces to `grpo` without KL on-policy."""
    return _moved(
        "gmpo", {"low": low, "high": high}, "sequence_mean", completions=completions_per_prompt, updates=updates,
        importance=importance, advantage=advantage,
    )  # fmt: skip


@method(of="grpo", differs="a soft gate for the clip", elsewhere={"TRL": "sapo", "verl": "sapo"})
def sapo(
    *, completions_per_prompt: int = 8, tau: float = 1.0, tau_negative: float = 1.05, updates: int = 4, importance: float = 0.0,
    advantage: str = "standardise",
) -> Method:  # fmt: skip
    """Soft adaptive policy optimisation: a sigmoid gate around the ratio instead of a clip, narrower for bad answers (Qwen 2025,
    arXiv:2511.20347). The loss at ratio 1 is 2 / tau: compare gradients, not losses.
    Reduces to `grpo` without KL on-policy."""
    return _moved(
        "sapo", {"tau": tau, "tau_negative": tau_negative}, "sequence_mean", completions=completions_per_prompt, updates=updates,
        importance=importance, advantage=advantage,
    )  # fmt: skip


@method(of="gspo", differs="a smooth weight of the whole ratio", elsewhere={"TRL": "vespo"})
def vespo(
    *, completions_per_prompt: int = 8, k: float = 2.0, fall: float = 3.0, k_negative: float = 3.0, fall_negative: float = 2.0,
    updates: int = 4, importance: float = 0.0, advantage: str = "standardise",
) -> Method:  # fmt: skip
    """Variational sequence-level soft policy optimisation: a smooth weight W^k exp(fall (1 - W)) of the whole answer's ratio on
    every token's score (2026, arXiv:2602.10693). An answer that has moved far either way stops teaching.

    Its authors' code has (2, 3) for good and (3, 2) for bad answers, as here; its comments say (2, 1.5) and (4, 2.5).
    Reduces to `dapo` but for its clip and refilling, on-policy."""
    parameters = {"k": k, "lam": fall, "k_negative": k_negative, "lam_negative": fall_negative}
    return _moved(
        "vespo", parameters, "token_mean", completions=completions_per_prompt, updates=updates, importance=importance,
        advantage=advantage,
    )  # fmt: skip


@method(of="grpo", differs="a trust region in probabilities", elsewhere={"verl": "dppo"})
def dppo(
    *, completions_per_prompt: int = 8, low: float = 0.2, high: float = 0.2, cap: float = 20.0, distance: str = "tv",
    updates: int = 4, advantage: str = "standardise",
) -> Method:  # fmt: skip
    """Divergence PPO: a token is left out once its probability, not its ratio, has moved too far from the sampler's (Qi et al.
    2026, arXiv:2602.04879). `distance` tv: the difference of probabilities; kl: of the token against all others, in nats (0.05
    is usual).

    PPO cuts a token of probability 1e-4 at a move of 2e-5, and a sure one at none. Its ratio is to the sampler itself: no
    recomputed log-probs, and no `importance` on top, which would count the mismatch twice.
    Reduces to `reinforce` with z-scored rewards over mean token log-probs, on-policy."""
    name = {"tv": "dppo", "kl": "dppo_kl"}[one_of("distance", distance, ("tv", "kl"), where="dppo")]
    return _moved(
        name, {"low": low, "high": high, "cap": cap}, "token_mean", completions=completions_per_prompt, updates=updates,
        advantage=advantage,
    )  # fmt: skip


@method(of="gspo", differs="times the length", elsewhere={"TRL": "luspo"})
def luspo(
    *, completions_per_prompt: int = 8, low: float = 2e-3, high: float = 2.5e-3, updates: int = 4, importance: float = 0.0,
    advantage: str = "standardise",
) -> Method:  # fmt: skip
    """Length-unbiased sequence policy optimisation: GSPO's loss of an answer times its tokens (2026, arXiv:2602.05261): every
    token of every answer has one weight, and short answers are not favoured. Reduces to `gspo` for answers of one token."""
    return _moved(
        "gspo", {"low": low, "high": high}, "sequence_sum", completions=completions_per_prompt, updates=updates,
        importance=importance, advantage=advantage,
    )  # fmt: skip


@method(of="grpo", differs="tokens of high covariance dropped", elsewhere={"verl": "clip_cov"})
def clip_cov(
    *, completions_per_prompt: int = 8, low: float = 0.2, high: float = 0.2, share: float = 2e-4, least: float = 1.0,
    most: float = 5.0, updates: int = 4, importance: float = 0.0, advantage: str = "standardise",
) -> Method:  # fmt: skip
    """PPO's clip, and a random `share` of all tokens, among those whose covariance of advantage and log-prob lies between
    `least` and `most`, loses its gradient: they are what lowers the entropy (Cui et al. 2025, arXiv:2505.22617).

    The covariance is over the whole step. Its bounds are in units of the advantage: they say nothing where that is not
    normalised. Reduces to `lite_ppo` with the group's own deviation, where no token is within the bounds."""
    parameters = {"low": low, "high": high, "share": share, "least": least, "most": most}
    return _moved(
        "clip_cov", parameters, "token_mean", completions=completions_per_prompt, updates=updates, importance=importance,
        advantage=advantage,
    )  # fmt: skip


@method(of="grpo", differs="tokens of high covariance held back", elsewhere={"verl": "kl_cov"})
def kl_cov(
    *, completions_per_prompt: int = 8, share: float = 2e-4, penalty: float = 1.0, updates: int = 4, importance: float = 0.0,
    advantage: str = "standardise",
) -> Method:  # fmt: skip
    """The ratio without a clip, and `penalty` per nat that the `share` of the step's tokens of the largest covariance of
    advantage and log-prob has moved (Cui et al. 2025, arXiv:2505.22617). The penalty has no gradient before the second update
    of a rollout. Reduces to `reinforce` with z-scored rewards over mean token log-probs, on-policy."""
    return _moved(
        "kl_cov", {"share": share, "penalty": penalty}, "token_mean", completions=completions_per_prompt, updates=updates,
        importance=importance, advantage=advantage,
    )  # fmt: skip


@method(of="grpo", differs="the tokens of highest entropy alone", elsewhere={"TRL": "top_entropy_quantile"})
def top_entropy(
    *, completions_per_prompt: int = 8, share: float = 0.2, low: float = 0.2, high: float = 0.28, updates: int = 1,
    importance: float = 0.0, advantage: str = "standardise",
) -> Method:  # fmt: skip
    """Only the `share` of the step's tokens at which the policy is least sure learn, the forks of a reasoning (Wang et al. 2025,
    arXiv:2506.01939). The threshold is over the whole step; the mean is still over all of its tokens.
    Reduces to `dapo` but for its refilling, at share = 1."""
    return _moved(
        "clipped", {"low": low, "high": high}, "token_mean", completions=completions_per_prompt, updates=updates,
        importance=importance, advantage=advantage, top_entropy=share,
    )  # fmt: skip


@method(of="grpo", differs="an answer of the data in every group, its tokens' weight shaped")
def luffy(
    *, completions_per_prompt: int = 8, low: float = 0.2, high: float = 0.2, gain: float = 0.1, updates: int = 1,
    advantage: str = "standardise", reduce: str = "token_mean",
) -> Method:  # fmt: skip
    """Learning from answers of somebody else beside one's own: the last of each group's answers is a demonstration, scored by the
    same reward and compared with the others; its tokens learn by `p / (p + gain)`, without a ratio or a clip, the policy's own
    by PPO's clip (LUFFY; Yan et al. 2025, arXiv:2504.14945). Learns from demonstrations, whose prompts must have what the
    reward needs.
    Reduces to `dapo` without its refilling, at its low clip, in the answers that are the policy's own."""
    rollouts = Rollouts(
        completions_per_prompt=completions_per_prompt, credit=comparing(advantage, completions_per_prompt, where="luffy"),
        exploration=Exploration(partner=DATA), schedule=Schedule(updates),
    )  # fmt: skip
    parameters = {"low": low, "high": high, "gain": gain}
    made = gradient(PolicyGradient(surrogate="mixed_policy", parameters=parameters, reduce=reduce), rollouts)
    return replace(made, data=DEMONSTRATIONS)
