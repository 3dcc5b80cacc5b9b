"""Offline methods that look at each answer's own log-ratio, or measure the distance to the reference otherwise."""

from __future__ import annotations

from evenhand.errors import UserError, one_of
from evenhand.methods import strengths
from evenhand.methods.pairs import of_pairs, pairs
from evenhand.objectives import BelowTheBest, Combined, Likelihood, Pairwise
from evenhand.train.method import Method, method


@method(space=strengths.WEAK, of="dpo", differs="each answer classified against noise",
        elsewhere={"TRL": "nca_pair", "study": "nca"})  # fmt: skip
def nca_pair(*, beta: float = 0.01) -> Method:
    """Noise-contrastive alignment of a pair (Chen et al. 2024, arXiv:2402.05369): the chosen answer's implicit reward has a
    finite optimum, beta a = log 2. The paper's beta is .01, TRL's default .1."""
    return pairs("nca", beta=beta)


@method(space=strengths.WEAK, of="dpo", differs="each answer classified by itself", elsewhere={"TRL": "bco_pair"})
def bco_pair(*, beta: float = 0.01) -> Method:
    """Binary classifier optimisation of a pair, its reward shift at 0 (Jung et al. 2024, arXiv:2404.04656), as in TRL; with the
    paper's running shift see `bco`. The paper's beta is .01, TRL's default .1. An upper bound of DPO's loss."""
    return pairs("bco_pair", beta=beta)


@method(space=strengths.WEAK, of="ipo", differs="IPO's target on either answer",
        also=("sppo_hard",), elsewhere={"TRL": "sppo_hard", "study": "~sppo, beta .1"})  # fmt: skip
def sppo(*, beta: float = 0.001) -> Method:
    """Self-play preference optimisation where the winner wins for certain (Wu et al. 2024, arXiv:2405.00675, eq. 4.7): regression
    of the log-ratios on +-1/(2 beta), that is +-500 nats at the paper's beta; TRL's default of .1 asks for +-5. The authors' code
    halves the sum."""
    return pairs("sppo", beta=beta)


@method(space=strengths.BETA, of="kto", differs="z0 = 0, on pairs", elsewhere={"TRL": "apo_zero", "study": "apo"})
def apo_zero(*, beta: float = 0.1) -> Method:
    """Anchored preference optimisation, zero: chosen answers rise and rejected ones fall, each against the reference alone
    (D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7), for data better than the model."""
    return pairs("apo_zero", beta=beta)


@method(space=strengths.BETA, of="dpo", differs="the chosen answer anchored, and pushed down", elsewhere={"TRL": "apo_down"})
def apo_down(*, beta: float = 0.1) -> Method:
    """Anchored preference optimisation, down: both answers fall, the rejected one further (D'Oosterlinck et al. 2024,
    arXiv:2408.06266, eq. 8), for a model that is better than its data. At the start the chosen answer has no gradient."""
    return pairs("apo_down", beta=beta)


@method(space=strengths.WEAK, of="dpo", differs="plus squares that pin the level of the rewards",
        elsewhere={"study": "~caldpo, beta .1, weight 1"})  # fmt: skip
def cal_dpo(*, beta: float = 0.001, weight: float = 0.5) -> Method:
    """Calibrated DPO: DPO without a beta plus `weight` times SPPO's squares (Xiao et al. 2024, arXiv:2412.14516; weight and beta
    of the authors' code)."""
    return pairs("cal_dpo", beta=beta, weight=weight)


@method(space=strengths.BETA, of="dpo", differs="plus a square on the sum of both log-ratios", elsewhere={"study": "c2dpo"})
def c2_dpo(*, beta: float = 0.1, weight: float = 2e-4) -> Method:
    """Constrained controlled DPO, its log-l2 form: the two log-ratios must balance, so that both cannot fall together (Asadi et
    al. 2025, arXiv:2502.17507; the paper has other forms, which were not verified).
    Reduces to `dpo` at weight = 0."""
    return pairs("c2_dpo", beta=beta, weight=weight)


@method(space=strengths.BETA, of="dpo", differs="a fall of the chosen answer is punished", elsewhere={"study": "dpop, weight 5"})
def dpop(*, beta: float = 0.3, weight: float = 50.0) -> Method:
    """DPO-Positive (Smaug): the chosen answer's fall below the reference counts `weight` times more (Pal et al. 2024,
    arXiv:2402.13228).
    Reduces to `dpo` at weight = 0."""
    return pairs("positive", beta=beta, weight=weight)


@method(space=strengths.BETA, of="dpo", differs="only the side that lags behind is pushed",
        elsewhere={"study": "bpo, alpha .3"})  # fmt: skip
def bpo(*, beta: float = 0.1, alpha: float = 0.5) -> Method:
    """Balanced preference optimisation: the smaller of the chosen answer's reward and `alpha` times the rejected one's fall (Sun
    et al. 2025, arXiv:2506.03557, eq. 5). Other methods of the name (behaviour-proximal, bipolar) are other losses."""
    return pairs("balanced", beta=beta, alpha=alpha)


@method(space=strengths.BETA, of="dpo", differs="a rejected answer below the reference is left alone",
        elsewhere={"study": "minordpo"})  # fmt: skip
def minor_dpo(*, beta: float = 0.1) -> Method:
    """MinorDPO: `max(0, b)` for the rejected answer's log-ratio b (Xie and Chen 2024, arXiv:2408.09834). Once b < 0 it has
    exactly no gradient."""
    return pairs("minor", beta=beta)


@method(space={**strengths.BETA, "share": (0.5, 0.75, 0.95)}, of="dpo", differs="the rejected answer counts by a share",
        elsewhere={"study": "dposhift"})  # fmt: skip
def dpo_shift(*, beta: float = 0.1, share: float = 0.75) -> Method:
    """DPO-Shift: the rejected answer's log-ratio counts by a fixed `share` (Yang et al. 2025, arXiv:2502.07599, who try .5 to 1,
    and schedules of it).
    Reduces to `dpo` at share = 1."""
    if not 0 < share <= 1:
        raise UserError(f"share is {share:g}", where="dpo_shift", why="at 0 nothing is rejected", fix="use a share in (0, 1]")
    return pairs("shifted", beta=beta, share=share)


@method(space={**strengths.BETA, "alpha": (0.85, 0.9, 0.95)}, of="dpo", differs="the entropy in the KL counts alpha times",
        elsewhere={"study": "hdpo"})  # fmt: skip
def h_dpo(*, beta: float = 0.1, alpha: float = 0.95) -> Method:
    """H-DPO: the policy's log-probs count `alpha` times, so that the optimum is sharper below 1 (Omura et al. 2024,
    arXiv:2411.07595). Its loss is not log 2 at the start.
    Reduces to `dpo` at alpha = 1."""
    return pairs("entropy_scaled", beta=beta, alpha=alpha)


@method(space={"pessimism": {"log": (1e-3, 1.0)}}, of="dpo", differs="plus the chosen answers' log-ratio: pessimism")
def vpo(*, beta: float = 0.1, pessimism: float = 0.1) -> Method:
    """Value-incentivised preference optimisation on fixed data: less `pessimism` beta times the log-ratio of the chosen answers,
    which stand for the paper's calibration distribution (Cen et al. 2024, arXiv:2405.19320). With fresh pairs the sign turns, see
    `vpo_online`. Its default was not verified.
    Reduces to `dpo` at pessimism = 0."""
    return pairs("calibrated", beta=beta, weight=-pessimism)


@method(
    space=strengths.BETA, of="dpo", differs="a mean of three losses", elsewhere={"TRL": "loss_type: [sigmoid, bco_pair, sft]"}
)
def mpo(*, beta: float = 0.1, preference: float = 0.8, quality: float = 0.2, likelihood: float = 1.0) -> Method:
    """Mixed preference optimisation: DPO, a classifier of each answer (`bco_pair`) and the chosen answers' likelihood (Wang et
    al. 2024, arXiv:2411.10442). The NLL is over the tokens of the step.
    Reduces to `dpo` at preference = 1 and quality = likelihood = 0."""
    dpo, classifier = (Pairwise(loss=loss, parameters={"beta": beta}) for loss in ("dpo", "bco_pair"))
    parts = dpo, classifier, Likelihood(on="chosen")
    return of_pairs(Combined(objectives=parts, coefficients=(preference, quality, likelihood)), rate=5e-6)


@method(space=strengths.WEAK, also=("triple_preference",), of="cpo", differs="a gold answer is imitated, and in no pair",
        elsewhere={"TRL": "tpo: sigmoid, simpo"})  # fmt: skip
def tpo(*, beta: float = 0.01, likelihood: float = 1.0, per: str = "sum", margin: float = 0.5) -> Method:
    """Triple preference optimisation: of three or more ranked answers the best is gold and is imitated, and the others make the
    pairs, without a reference (Saeidi et al. 2024, arXiv:2405.16681). `per` mean compares log-probs per token against `margin`
    (the paper's TPO-L), sum whole answers without one. The gold answer's NLL is over the tokens of the step.
    Reduces to `cpo` for plain pairs, whose chosen answer is the gold one."""
    one_of("per", per, ("sum", "mean"), where="tpo")
    loss = {"sum": Pairwise(loss="local", parameters={"beta": beta}),
            "mean": Pairwise(loss="simpo", parameters={"beta": beta, "margin": margin})}[per]  # fmt: skip
    parts = BelowTheBest(objective=loss), Likelihood(on="gold")
    return of_pairs(Combined(objectives=parts, coefficients=(1.0, likelihood)), reference="none", rate=1e-6)


# ---- another distance to the reference ------------------------------------------------------------------------------


@method(space=strengths.BETA, of="dpo", differs="another f-divergence to the reference",
        elsewhere={"TRL": "f_divergence_type", "study": "~fdpo"})  # fmt: skip
def f_dpo(*, beta: float = 0.1, divergence: str = "forward_kl", alpha: float = 0.5) -> Method:
    """DPO under another divergence: reverse_kl, forward_kl, jensen_shannon or alpha (Wang et al. 2023, arXiv:2309.16240, table
    1). Under the forward KL and Jensen-Shannon a chosen answer's score is bounded above. `alpha` is the paper's; TRL's
    `f_alpha_divergence_coef` is 1 - alpha.
    Reduces to `dpo` under the reverse KL."""
    one_of("divergence", divergence, ("reverse_kl", "forward_kl", "jensen_shannon", "alpha"), where="f_dpo")
    if divergence == "reverse_kl":
        return pairs("dpo", beta=beta)
    if divergence == "alpha" and not 0 < alpha < 1:
        fix = "use reverse_kl for 0 and forward_kl for 1"
        raise UserError(f"alpha is {alpha:g}", where="f_dpo", why="the alpha divergence needs 0 < alpha < 1", fix=fix)
    settings = {"beta": beta, "alpha": alpha} if divergence == "alpha" else {"beta": beta}
    return of_pairs(Pairwise(loss=f"f_dpo_{divergence}", parameters=settings))


@method(space=strengths.BETA, of="dpo", differs="chi^2 + KL to the reference", elsewhere={"study": "chipo, without the limit"})
def chi_po(*, beta: float = 0.1, reward_limit: float = 0.0) -> Method:
    """Chi-squared preference optimisation: a log-ratio t counts as e^t + t, so that going far from the reference costs more
    (Huang et al. 2024, arXiv:2407.13399). `reward_limit` R clips margins at +-2R, where a pair has no gradient; 0 is off. Near
    the start it is `dpo` at twice the beta."""
    settings = {"beta": beta, "limit": 2 * reward_limit} if reward_limit else {"beta": beta}
    return of_pairs(Pairwise(loss="chi_po", parameters=settings))
