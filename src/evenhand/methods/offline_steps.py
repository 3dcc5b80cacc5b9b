"""Offline methods that look inside the answers, at their scores, or at the whole step."""

from __future__ import annotations

from evenhand.errors import UserError
from evenhand.methods import strengths
from evenhand.methods.pairs import of_pairs, pairs
from evenhand.objectives import Labelled, SteeredPairs
from evenhand.train.method import BINARY, Method, method

# ---- inside the answers ---------------------------------------------------------------------------------------------


@method(space={**strengths.BETA, "alpha": (0.1, 0.3, 0.5, 0.7)}, of="dpo", differs="tokens beyond the shorter answer count less",
        elsewhere={"TRL": "ld_alpha"})  # fmt: skip
def ld_dpo(*, beta: float = 0.1, alpha: float = 0.5) -> Method:
    """Length-desensitised DPO: of the longer answer, tokens past the shorter one's length count `alpha` times (Liu et al. 2024,
    arXiv:2409.06411). Policy and reference alike, as in TRL. The loss that pays `alpha` per token is `r_dpo`.
    Reduces to `dpo` at alpha = 1."""
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha is {alpha:g}", where="ld_dpo", why="it is a share of the tokens beyond", fix="use 0 to 1")
    return pairs("ld_dpo", beta=beta, alpha=alpha)


@method(space=strengths.BETA, of="dpo", differs="equally many tokens, drawn", elsewhere={"study": "~sampo, drawn twice"})
def sam_po(*, beta: float = 0.1) -> Method:
    """SamPO: both log-ratios over as many tokens as the shorter answer has, drawn anew in every step (Lu et al. 2024,
    arXiv:2406.10957). The same tokens for policy and reference: drawn apart, as in public code, the loss is noise at the start.
    Reduces to `dpo` for answers of one token."""
    return pairs("sam_po", beta=beta)


@method(space=strengths.WEAK, of="dpo", differs="pairs weigh by how likely the policy writes them",
        elsewhere={"TRL": "use_weighting, not capped", "study": "~wpo"})  # fmt: skip
def wpo(*, beta: float = 0.01) -> Method:
    """Weighted preference optimisation: off-policy pairs count for less (Zhou et al. 2024, arXiv:2406.11827, eq. 2). The weight
    is held constant and capped at 1 as in the authors' code; it is not divided by its sum."""
    return pairs("wpo", beta=beta)


@method(revision=1, space=strengths.BETA, of="dpo", differs="less the difference of both answers' exact KL")
def tdpo(*, beta: float = 0.1) -> Method:
    """Token-level DPO, first form: less the difference of the two answers' KL(reference, policy), summed token by token over the
    whole vocabulary (Zeng et al. 2024, arXiv:2404.11999). Costs a pass of the reference in every step."""
    return pairs("tdpo1", beta=beta)


@method(
    revision=1,
    space={**strengths.BETA, "alpha": (0.3, 0.5, 0.7)},
    of="tdpo",
    differs="a share of it, the chosen answer's held constant",
)
def tdpo2(*, beta: float = 0.1, alpha: float = 0.5) -> Method:
    """Token-level DPO, second form: `alpha` of the difference, the chosen answer's KL without gradient (Zeng et al. 2024,
    arXiv:2404.11999).
    Reduces to `dpo` at alpha = 0."""
    return pairs("tdpo2", beta=beta, alpha=alpha)


@method(revision=1, space=strengths.BETA, of="dpo", differs="a beta per pair, by the reference's entropy")
def mallows_dpo(*, beta: float = 0.1, scale: float = 1.0) -> Method:
    """MallowsPO: pairs whose answers the reference is sure of have a larger beta, by minus the log of its mean entropy as a share
    of log V (Chen et al. 2024, arXiv:2405.14953). `scale` is chosen so that the mean factor is about 1; its value in the paper
    was not verified. Costs a pass of the reference in every step."""
    return pairs("mallows", beta=beta, scale=scale)


# ---- scores ---------------------------------------------------------------------------------------------------------


@method(space={**strengths.BETA, "alpha": (0.5, 1.0)}, of="dpo", differs="an offset, the log of the rating gap",
        elsewhere={"study": "~odpo, a constant offset"})  # fmt: skip
def odpo(*, beta: float = 0.1, alpha: float = 1.0) -> Method:
    """DPO with an offset: the margin must exceed `alpha` times the log of the two ratings' gap (Amini et al. 2024,
    arXiv:2402.10571). The offset is negative for gaps below 1. Not online DPO. Plain pairs have gap 1.
    Reduces to `dpo` at alpha = 0."""
    return pairs("odpo", beta=beta, alpha=alpha)


@method(space={"eta": {"log": (0.1, 100.0)}}, of="ipo", differs="the target is the rating gap")
def rebel(*, eta: float = 1.0) -> Method:
    """REBEL on rated pairs: the log-ratios' difference regresses on `eta` times the ratings' (Gao et al. 2024, arXiv:2404.16767).
    The reference, here the start, is meant to have written the answers; on fresh pairs see `rebel_online`.
    Reduces to `ipo` on plain pairs, at eta = 1/(2 tau)."""
    return pairs("rebel", eta=eta)


# ---- the whole step -------------------------------------------------------------------------------------------------


@method(revision=1, space={**strengths.BETA, "robustness": (0.5, 1.0, 2.0)}, of="dpo",
        differs="a soft minimum over the step's pairs", elsewhere={"study": "drdpo, per micro-batch"})  # fmt: skip
def dr_dpo(*, beta: float = 0.1, robustness: float = 1.0) -> Method:
    """Distributionally robust DPO: pairs of the step weigh by softmax(-loss / `robustness`), the paper's beta' (Wu et al. 2024,
    arXiv:2407.07880). Small values keep only the easiest pairs; large ones weigh all alike.
    Reduces to `dpo` with one pair per step."""
    objective = SteeredPairs(loss="dpo", parameters={"beta": beta}, rule="softmin", rule_parameters={"temperature": robustness})
    return of_pairs(objective)


@method(space={**strengths.BETA, "alpha": (0.2, 0.6)}, of="dpo", differs="one beta per step, by its margins; outliers dropped",
        elsewhere={"study": "~betadpo, per pair"})  # fmt: skip
def beta_dpo(*, beta: float = 0.1, alpha: float = 0.6, drop: float = 0.2, decay: float = 0.9) -> Method:
    """Beta-DPO: a share `drop` of the step's pairs, outliers first, is left out, and one beta serves the rest, larger the further
    their margins are above the moving average (Wu et al. 2024, arXiv:2407.08639; `alpha` and `drop` were not verified). The
    average is part of a checkpoint, and begins with the first step.
    Reduces to `dpo` at alpha = drop = 0."""
    settings = {"beta": beta, "alpha": alpha, "drop": drop, "decay": decay}
    return of_pairs(SteeredPairs(loss="dpo", rule="dynamic_beta", rule_parameters=settings))


@method(space={"beta": (2.5, 5.0, 10.0), "alpha": (0.02, 0.05, 0.2)}, of="simpo", differs="a margin per pair, by its advance",
        elsewhere={"study": "~alphadpo, variance"})  # fmt: skip
def alpha_dpo(*, beta: float = 2.5, ratio: float = 0.6, alpha: float = 0.2, decay: float = 0.9) -> Method:
    """alpha-DPO: SimPO whose margin per token, `ratio`, grows by `alpha` for every deviation that a pair is ahead of the
    reference (Wu et al. 2024, arXiv:2410.10148). Its moving moments are part of a checkpoint, and begin with the first step.
    Reduces to `simpo` at alpha = 0 with margin = beta ratio."""
    settings = {"margin": beta * ratio, "alpha": beta * alpha, "decay": decay}
    return of_pairs(
        SteeredPairs(loss="simpo", parameters={"beta": beta}, rule="margin_by_advance", rule_parameters=settings), rate=1e-6
    )


# ---- single labelled answers ----------------------------------------------------------------------------------------


@method(revision=1, space=strengths.WEAK, of="kto", differs="a classifier, shifted by the mean reward so far")
def bco(*, beta: float = 0.01) -> Method:
    """Binary classifier optimisation of single labelled answers: their implicit reward against the mean of all so far, which a
    checkpoint holds (Jung et al. 2024, arXiv:2404.04656), without its weights for prompts that differ between good and bad
    answers. TRL 1.16 has dropped it."""
    return Method(objective=Labelled(loss="bco", beta=beta), data=BINARY, reference="start", learning_rate=5e-7)


@method(
    revision=1,
    space={"beta": (0.01, 0.03, 0.05, 0.1)},
    of="outcome_reward_model",
    differs="the score is the policy's own log-ratio",
)
def implicit_process_reward(*, beta: float = 0.05) -> Method:
    """Implicit process reward model: whether an answer is right, as the cross-entropy of its label with `beta` times its
    log-ratio to the start as logit (PRIME; Cui et al. 2025, arXiv:2502.01456). As a reward model it says what every token earns:
    credits per token (`ppo`, `reinforce_pp`) take it there, others the whole answer's sum. No label of a step is needed.
    Reduces to `bco` without its running mean, and for a pair's two labels to `bco_pair`."""
    return Method(objective=Labelled(loss="bco", shift="none", beta=beta), data=BINARY, reference="start", learning_rate=1e-6)


@method(revision=1, space=strengths.BETA, of="kto", differs="z0 = 0", elsewhere={"TRL": "apo_zero_unpaired"})
def apo_zero_unpaired(*, beta: float = 0.1) -> Method:
    """APO-zero of single labelled answers: KTO whose reference point is 0 (D'Oosterlinck et al. 2024, arXiv:2408.06266)."""
    objective = Labelled(loss="apo_zero", shift="none", beta=beta)
    return Method(objective=objective, data=BINARY, reference="start", learning_rate=5e-7)
