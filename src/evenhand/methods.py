"""The poster page: every method is one expression over five coordinates (source, signal, credit, objective, reference).

A function here returns a `Method`; its keyword parameters are the method's hyper-parameters in an experiment file, its docstring
says what it is, from which paper, and what it reduces to; `python -m evenhand.experiment.catalogue` makes docs/methods.md of it.
`steps` and `max_tokens`, where a method asks for them, come from the experiment.
"""

from __future__ import annotations

from evenhand.errors import UserError
from evenhand.objectives import BradleyTerry, Combined, Kto, Likelihood, Pairwise, PolicyGradient, Transport
from evenhand.train.method import BINARY, COMPARISONS, DEMONSTRATIONS, METHODS, PREFERENCES, PROMPTS, Method, build, method
from evenhand.train.rollouts import Rollouts

__all__ = ["BINARY", "COMPARISONS", "DEMONSTRATIONS", "METHODS", "PREFERENCES", "PROMPTS", "Method", "build", "method"]


def _pairs(loss: str, *, reference: str = "start", rate: float = 5e-7, **parameters: float) -> Method:
    return Method(objective=Pairwise(loss=loss, parameters=parameters), data=PREFERENCES, reference=reference, learning_rate=rate)


def _gradient(objective: PolicyGradient, rollouts: Rollouts, *, reference: float = 0.0, network: str = "policy") -> Method:
    frozen = "start" if reference else "none"
    return Method(objective=objective, data=PROMPTS, rollouts=rollouts, reference=frozen, network=network, learning_rate=1e-6)


def _selected(loss: str, rollouts: Rollouts, *, reference: str, **parameters: float) -> Method:
    objective = Pairwise(loss=loss, parameters=parameters)
    return Method(objective=objective, data=PROMPTS, rollouts=rollouts, reference=reference, learning_rate=5e-7)


# ---- likelihood and reward models -----------------------------------------------------------------------------------


@method
def sft(*, reduce: str = "token_mean") -> Method:
    """Supervised fine-tuning: maximum likelihood of demonstrations, every token alike (or `sequence_mean`).
    Reduces to the cross-entropy of completion tokens."""
    return Method(objective=Likelihood(reduce=reduce), data=DEMONSTRATIONS, learning_rate=2e-5)


@method
def reward_model(*, margin_scale: float = 0.0, centring: float = 0.01) -> Method:
    """Bradley-Terry reward model on all pairs of each group (Ouyang et al. 2022, eq. 1; margins: Llama 2, eq. 2)."""
    objective = BradleyTerry(margin_scale=margin_scale, centring=centring)
    return Method(objective=objective, data=PREFERENCES, network="reward", learning_rate=2e-6)


@method
def local(*, beta: float = 1 / 53) -> Method:
    """The local reward model r = beta log pi(y | x), no reference (All Roads Lead to Likelihood, section 2, appendix A.5).
    Reduces to `dpo` against a reference that gives every answer probability 1."""
    return _pairs("local", reference="none", rate=3e-7, beta=beta)


@method
def preference_model() -> Method:
    """Pairwise preference model: both answers in one text, the loss on the letter A or B of the better one, whose place is drawn
    (Dong et al. 2024, section 2.1)."""
    return Method(objective=Likelihood(), data=COMPARISONS, learning_rate=5e-6)


# ---- offline preference methods -------------------------------------------------------------------------------------


@method
def dpo(*, beta: float = 0.1) -> Method:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7)."""
    return _pairs("dpo", beta=beta)


@method
def cdpo(*, beta: float = 0.1, flip: float = 0.1) -> Method:
    """Conservative DPO: labels are wrong with probability `flip` (Mitchell 2023).
    Reduces to `dpo` at flip = 0."""
    return _pairs("cdpo", beta=beta, flip=flip)


@method
def robust_dpo(*, beta: float = 0.1, flip: float = 0.1) -> Method:
    """The unbiased loss under flipped labels (Chowdhury et al. 2024, arXiv:2403.00409). It never saturates.
    Reduces to `dpo` at flip = 0."""
    return _pairs("robust", beta=beta, flip=flip)


@method
def ipo(*, tau: float = 0.1) -> Method:
    """Identity preference optimisation on summed log-probs, as printed (Azar et al. 2023, eq. 17)."""
    return _pairs("ipo", tau=tau)


@method
def ipo_mean(*, tau: float = 0.1) -> Method:
    """IPO on length-mean log-ratios, as its authors ran it; tau does not transfer from `ipo`.
    Reduces to `ipo` for answers of one token."""
    return _pairs("ipo_mean", tau=tau)


@method
def hinge(*, beta: float = 0.1) -> Method:
    """RSO's hinge on the DPO margin (Liu et al. 2023, arXiv:2309.06657)."""
    return _pairs("hinge", beta=beta)


@method
def slic(*, margin: float = 1.0, likelihood: float = 0.1) -> Method:
    """SLiC-HF: a hinge on log-probs, without a reference, plus the chosen answer's likelihood (Zhao et al. 2023)."""
    pair = Pairwise(loss="slic", parameters={"margin": margin})
    nll = Likelihood(on="chosen", reduce="sequence_sum")
    return Method(
        objective=Combined(objectives=(pair, nll), coefficients=(1.0, likelihood)), data=PREFERENCES, learning_rate=5e-7
    )


@method
def simpo(*, beta: float = 2.0, margin: float = 0.5) -> Method:
    """SimPO: length-mean log-probs against a margin, no reference (Meng et al. 2024, eq. 6).
    Reduces to `local` for answers of one token, at margin = 0."""
    return _pairs("simpo", reference="none", rate=1e-6, beta=beta, margin=margin)


@method
def aot(*, beta: float = 0.1) -> Method:
    """Alignment by optimal transport, unpaired: chosen dominate rejected, sorted over the step (Melnyk et al. 2024, eq. 9).
    Reduces to `dpo` with one pair per step."""
    return Method(objective=Transport(form="unpaired", beta=beta), data=PREFERENCES, reference="start", learning_rate=5e-7)


@method
def aot_paired(*, beta: float = 0.1) -> Method:
    """AOT, paired: policy margins dominate reference margins, sorted over the step (Melnyk et al. 2024, eq. 7).
    Reduces to `dpo` with one pair per step."""
    return Method(objective=Transport(form="paired", beta=beta), data=PREFERENCES, reference="start", learning_rate=5e-7)


@method
def orpo(*, weight: float = 0.1) -> Method:
    """Odds-ratio preference optimisation with its likelihood term (Hong et al. 2024, eq. 6).
    Reduces to `orpo_odds` without the likelihood."""
    nll, odds = Likelihood(on="chosen"), Pairwise(loss="orpo", parameters={})
    return Method(objective=Combined(objectives=(nll, odds), coefficients=(1.0, weight)), data=PREFERENCES, learning_rate=8e-6)


@method
def orpo_odds() -> Method:
    """ORPO's odds-ratio term alone, for a policy that had its SFT already."""
    return Method(objective=Pairwise(loss="orpo", parameters={}), data=PREFERENCES, learning_rate=8e-6)


@method
def kto(*, beta: float = 0.1, weight_desirable: float = 1.0, weight_undesirable: float = 1.0) -> Method:
    """Kahneman-Tversky optimisation of single labelled answers (Ethayarajh et al. 2024, eq. 8); pairs become two labels."""
    objective = Kto(beta=beta, weight_desirable=weight_desirable, weight_undesirable=weight_undesirable)
    return Method(objective=objective, data=BINARY, reference="start", learning_rate=5e-6)


@method
def topr(*, baseline: float = 0.0) -> Method:
    """Tapered off-policy REINFORCE on labelled answers, the start standing in for their unknown author (Le Roux et al. 2025)."""
    objective = PolicyGradient(surrogate="topr")
    return Method(objective=objective, data=BINARY, reference="start", label_baseline=baseline, learning_rate=3e-6)


@method
def rpo(*, beta: float = 0.1, likelihood: float = 1.0) -> Method:
    """DPO plus the chosen answer's likelihood (Pang et al. 2024, eq. 1).
    Reduces to `dpo` at likelihood = 0."""
    pair, nll = Pairwise(loss="dpo", parameters={"beta": beta}), Likelihood(on="chosen")
    objective = Combined(objectives=(pair, nll), coefficients=(1.0, likelihood))
    return Method(objective=objective, data=PREFERENCES, reference="start", learning_rate=5e-7)


@method
def ld_dpo(*, beta: float = 0.1, alpha: float = 0.01) -> Method:
    """Length-desensitised DPO: the implicit reward pays `alpha` per token (Park et al. 2024).
    Reduces to `dpo` at alpha = 0."""
    return _pairs("length_desensitised", beta=beta, alpha=alpha)


# ---- online: policy gradients ---------------------------------------------------------------------------------------


@method
def reinforce(
    *, completions_per_prompt: int = 4, baseline: str = "batch_baseline", kl: float = 0.05, entropy: float = 0.0
) -> Method:
    """REINFORCE with a baseline (`batch_baseline`, `running_baseline` or `none`), KL in the reward (Williams 1992)."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit=baseline, kl=kl)
    return _gradient(PolicyGradient(surrogate="reinforce", reduce="sequence_sum", entropy=entropy), rollouts, reference=kl)


@method
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
) -> Method:
    """PPO: value head, GAE whitened over the rollout, token clip, several epochs, KL per token in the reward, fixed or adaptive
    (Schulman et al. 2017, eq. 9; Ziegler et al. 2019).
    Reduces to `reinforce` with the reward-to-go at lam = 1, no clip, value 0 and one update, but for the whitening."""
    if not value > 0:
        raise UserError(f"value is {value}", where="ppo", why="its critic would never learn", fix="use value > 0, or `reinforce`")
    rollouts = Rollouts(
        completions_per_prompt=completions_per_prompt, credit="gae", updates=updates, epochs=epochs, kl=kl, kl_target=kl_target,
        gamma=gamma, lam=lam,
    )  # fmt: skip
    objective = PolicyGradient(
        surrogate="clipped", parameters={"low": clip, "high": clip}, reduce="token_mean", value=value, value_clip=value_clip,
        entropy=entropy,
    )  # fmt: skip
    return _gradient(objective, rollouts, reference=kl, network="value")


@method
def rloo(*, completions_per_prompt: int = 8, kl: float = 0.05, entropy: float = 0.0) -> Method:
    """REINFORCE with a leave-one-out baseline, KL in the reward (Ahmadian et al. 2024, arXiv:2402.14740)."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit="leave_one_out", kl=kl)
    return _gradient(PolicyGradient(surrogate="reinforce", reduce="sequence_sum", entropy=entropy), rollouts, reference=kl)


@method
def rank(*, completions_per_prompt: int = 8, kl: float = 0.05) -> Method:
    """RLOO with rank advantages: the mean sign against the others of the group (Shenoy and Zander 2026, eq. 7)."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit="rank", kl=kl)
    return _gradient(PolicyGradient(surrogate="reinforce", reduce="sequence_sum"), rollouts, reference=kl)


@method
def grpo(
    *,
    completions_per_prompt: int = 8,
    kl: float = 0.04,
    kl_estimator: str = "k3",
    low: float = 0.2,
    high: float = 0.2,
    updates: int = 1,
    epochs: int = 1,
    entropy: float = 0.0,
    importance: float = 0.0,
) -> Method:
    """Group-relative policy optimisation: z-scored rewards, token clip, k3 in the loss (Shao et al. 2024, arXiv:2402.03300).

    `entropy` weighs a bonus; `importance` caps the weight that corrects a sampler unlike the trainer (2 is usual).
    Reduces to `reinforce` with z-scored rewards at ratio 1 and kl = 0, over mean token log-probs."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit="standardise", updates=updates, epochs=epochs)
    objective = PolicyGradient(
        surrogate="clipped", parameters={"low": low, "high": high}, reduce="sequence_mean", kl=kl, kl_estimator=kl_estimator,
        entropy=entropy, importance=importance,
    )  # fmt: skip
    return _gradient(objective, rollouts, reference=kl)


@method
def dr_grpo(
    *,
    max_tokens: int,
    completions_per_prompt: int = 8,
    low: float = 0.2,
    high: float = 0.2,
    updates: int = 1,
    entropy: float = 0.0,
    importance: float = 0.0,
) -> Method:
    """GRPO without its biases: centred rewards, a constant length in the denominator (Liu et al. 2025, arXiv:2503.20783).
    Reduces to `rloo` without KL, times (G - 1) / (G L), on-policy."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit="centre", updates=updates)
    objective = PolicyGradient(
        surrogate="clipped", parameters={"low": low, "high": high}, reduce=f"constant:{max_tokens}", entropy=entropy,
        importance=importance,
    )  # fmt: skip
    return _gradient(objective, rollouts)


@method
def dapo(
    *,
    max_tokens: int,
    completions_per_prompt: int = 8,
    low: float = 0.2,
    high: float = 0.28,
    refill: int = 3,
    overlong: float = 0.2,
    mask_truncated: bool = False,
    updates: int = 1,
    entropy: float = 0.0,
    importance: float = 0.0,
) -> Method:
    """Clip-higher, token mean, flat groups refilled, soft penalty over the last `overlong` share of the limit
    (Yu et al. 2025, arXiv:2503.14476)."""
    rollouts = Rollouts(
        completions_per_prompt=completions_per_prompt, credit="standardise", updates=updates, refill=refill,
        mask_truncated=mask_truncated, overlong_limit=max_tokens, overlong_buffer=round(overlong * max_tokens),
    )  # fmt: skip
    objective = PolicyGradient(
        surrogate="clipped", parameters={"low": low, "high": high}, reduce="token_mean", entropy=entropy, importance=importance
    )
    return _gradient(objective, rollouts)


@method
def gspo(*, completions_per_prompt: int = 8, low: float = 3e-4, high: float = 4e-4, updates: int = 4) -> Method:
    """Group sequence policy optimisation: the geometric-mean ratio of the sequence, clipped (Zheng et al. 2025, eq. 5).
    Reduces to `grpo` without KL for answers of one token."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit="standardise", updates=updates)
    objective = PolicyGradient(surrogate="gspo", parameters={"low": low, "high": high}, reduce="sequence_mean")
    return _gradient(objective, rollouts)


@method
def cispo(*, completions_per_prompt: int = 8, low: float = 1.0, high: float = 4.0, updates: int = 4) -> Method:
    """A clipped, detached importance weight, so that no token loses its gradient (MiniMax-M1 2025, arXiv:2506.13585).
    Reduces to the gradient of `dapo` on-policy."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit="standardise", updates=updates)
    objective = PolicyGradient(surrogate="cispo", parameters={"low": low, "high": high}, reduce="token_mean")
    return _gradient(objective, rollouts)


@method
def topr_online(*, completions_per_prompt: int = 8, baseline: float = 0.0, updates: int = 4) -> Method:
    """Tapered off-policy REINFORCE on its own earlier samples, reward minus a constant (Le Roux et al. 2025, eq. 3).
    Reduces to `reinforce` with a constant baseline on its own fresh samples."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit="none", baseline=baseline, updates=updates)
    return _gradient(PolicyGradient(surrogate="topr"), rollouts)


# ---- online: selections ---------------------------------------------------------------------------------------------


@method
def online_dpo(*, completions_per_prompt: int = 2, beta: float = 0.1) -> Method:
    """DPO on fresh pairs, best against worst of the group, reference the start (Guo et al. 2024, arXiv:2402.04792)."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, select="best_vs_worst")
    return _selected("dpo", rollouts, reference="start", beta=beta)


@method
def batched_online_dpo(*, steps: int, completions_per_prompt: int = 25, beta: float = 0.05) -> Method:
    """All pairs sampled once from the start, which is the reference; logits scaled by 1/T
    ("All Roads Lead to Likelihood", section 3)."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, select="best_vs_worst", updates=steps)
    return _selected("dpo", rollouts, reference="generator", beta=beta)


@method
def iterative_dpo(
    *,
    steps: int,
    rounds: int = 3,
    epochs: int = 2,
    completions_per_prompt: int = 8,
    temperatures: tuple[float, ...] = (1.0, 0.7),
    beta: float = 0.1,
    likelihood: float = 0.0,
    length_penalty: float = 0.0,
    reference: str = "start",
    accumulate: bool = False,
    hybrid: bool = False,
    partner: str = "none",
) -> Method:
    """Online iterative RLHF: each round samples at mixed temperatures, takes best against worst, trains DPO
    (Dong et al. 2024, algorithm 2). `reference` is start (the text) or generator (the released script); `hybrid` adds the
    data's own pairs to every round; `partner: start` lets the frozen start write the second half of every group."""
    if hybrid and reference != "start":
        raise UserError("hybrid data need a fixed reference", where="iterative_dpo", fix="use `reference: start`")
    rollouts = Rollouts(
        completions_per_prompt=completions_per_prompt, select="best_vs_worst", updates=-(-steps // rounds), epochs=epochs,
        temperatures=temperatures, accumulate=accumulate, length_penalty=length_penalty, hybrid=hybrid, partner=partner,
    )  # fmt: skip
    pair, nll = Pairwise(loss="dpo", parameters={"beta": beta}), Likelihood(on="chosen")
    objective = Combined(objectives=(pair, nll), coefficients=(1.0, likelihood)) if likelihood else pair
    return Method(objective=objective, data=PROMPTS, rollouts=rollouts, reference=reference, temperature=1.0, learning_rate=5e-7)


@method
def raft(*, completions_per_prompt: int = 8, updates: int = 1) -> Method:
    """Reward-ranked fine-tuning: likelihood of the best of each group (Dong et al. 2023, arXiv:2304.06767).
    Reduces to `sft` on the answers that were kept."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, select="best", updates=updates)
    return Method(objective=Likelihood(), data=PROMPTS, rollouts=rollouts, temperature=1.0, learning_rate=1e-6)
