"""Offline methods that put another function over DPO's margin."""

from __future__ import annotations

from evenhand.errors import UserError, one_of
from evenhand.methods import strengths
from evenhand.methods.pairs import pairs
from evenhand.train.method import Method, method

SHAPES = ("logistic", "hinge", "squared", "truncated_squared", "exponential", "savage")


@method(space=strengths.BETA, of="dpo", differs="reverse KL to smoothed labels",
        also=("exo_pair",), elsewhere={"TRL": "exo_pair", "study": "exo"})  # fmt: skip
def exo(*, beta: float = 0.1, flip: float = 0.001) -> Method:
    """Efficient exact optimisation of a pair: the reverse KL of the policy's preference from labels that are wrong with
    probability `flip` (Ji et al. 2024, arXiv:2402.00856, eq. 16). Margins stop at beta D = log((1 - flip) / flip), and a badly
    misranked pair is given up. Without smoothing the loss is infinite, which is TRL's default; the authors' code sets log flip to
    -10."""
    if not 0 < flip < 0.5:
        raise UserError(f"flip is {flip:g}", where="exo", why="without smoothing the loss is infinite", fix="use 0.001")
    return pairs("exo", beta=beta, flip=flip)


@method(space=strengths.BETA, of="dpo", differs="a found mixture of logistic and exponential loss",
        elsewhere={"TRL": "discopop", "study": "discopop"})  # fmt: skip
def discopop(*, beta: float = 0.05, width: float = 0.05) -> Method:
    """The loss that a language model found (DiscoPOP, LRML; Lu et al. 2024, arXiv:2406.08414, eq. 5); `width` is the paper's tau.
    Its slope at the start has the wrong sign: a run from the reference first lowers its margins, to beta D = -.1186 if nothing
    else carries them over +.0720. Other codes give NaN far on the wrong side."""
    return pairs("discopop", beta=beta, width=width)


@method(space=strengths.BETA, of="dpo", differs="any convex (or bounded) function of the margin", elsewhere={"study": "gpo"})
def gpo(*, beta: float = 0.1, shape: str = "exponential") -> Method:
    """Generalised preference optimisation: `shape` logistic, hinge, squared, truncated_squared, exponential or savage (Tang et
    al. 2024, arXiv:2402.05749). Squared and exponential are not bounded: a few pairs far on the wrong side rule the step.
    Reduces to `dpo` with the logistic and to `rso_hinge` with the hinge."""
    one_of("shape", shape, SHAPES, where="gpo")
    loss = {"logistic": "dpo", "hinge": "hinge"}.get(shape, f"gpo_{shape}")
    return pairs(loss, beta=beta)


@method(space=strengths.BETA, of="dpo", differs="pairs ranked right weigh more", elsewhere={"study": "~focalpo, focus 1"})
def focal_po(*, beta: float = 0.1, focus: float = 0.05) -> Method:
    """FocalPO: a pair weighs by its own probability to the power `focus`, held constant (Liu et al. 2025, arXiv:2501.06645, eq.
    4). With the factor in the graph the gradient would turn round for pairs ranked wrong. The value of `focus` in the paper was
    not verified.
    Reduces to `dpo` at focus = 0."""
    return pairs("focal", beta=beta, focus=focus)


@method(space=strengths.BETA, of="dpo", differs="Cauchy in place of logistic noise")
def cauchy_dpo(*, beta: float = 0.1) -> Method:
    """DPO for preferences with Cauchy's tails (a part of RainbowPO; Zhao et al. 2024, arXiv:2410.04203). Outliers pull with one
    over their margin."""
    return pairs("cauchy", beta=beta)


@method(space=strengths.BETA, of="local_reward_model", differs="less the entropy of the preference: margins stop growing",
        elsewhere={"study": "~spo, sign reversed"})  # fmt: skip
def spo_silu(*, beta: float = 0.1) -> Method:
    """Self-preference optimisation by a SiLU on the margin of summed log-probs, without a reference (Sun et al. 2025, EMNLP
    Findings 300). Lowest at beta (chosen - rejected) = 1.2785. Public code has it with the other sign, which has no minimum. Not
    the SPO of Swamy et al. 2024, see `spo_minimax`."""
    return pairs("silu_margin", reference="none", beta=beta)
