"""Offline methods that take an answer's length into account, and those without a reference."""

from __future__ import annotations

from evenhand.methods import strengths
from evenhand.methods.pairs import of_pairs, pairs, with_likelihood
from evenhand.objectives import Combined, Likelihood, Pairwise
from evenhand.train.method import Method, method


@method(
    space=strengths.PER_TOKEN, of="dpo", differs="log-ratios per token", also=("sigmoid_norm",), elsewhere={"TRL": "sigmoid_norm"}
)
def dpo_norm(*, beta: float = 5.0) -> Method:
    """Length-normalised DPO: the margin of length-mean log-ratios (Tulu 3, Lambert et al. 2024, arXiv:2411.15124, section 4.3;
    TRL's `sigmoid_norm`, whose default beta of .1 is small for a margin per token).
    Reduces to `dpo` for answers of one token."""
    return pairs("dpo_norm", beta=beta)


@method(space=strengths.BETA, of="rpo", differs="no reference", elsewhere={"TRL": "cpo", "study": "cpo"})
def cpo(*, beta: float = 0.1, likelihood: float = 1.0, reduce: str = "token_mean") -> Method:
    """Contrastive preference optimisation: DPO without a reference, plus the chosen answer's likelihood (Xu et al. 2024,
    arXiv:2401.08417, eq. 3).
    Reduces to `local_reward_model` at likelihood = 0."""
    objective = with_likelihood(Pairwise(loss="local", parameters={"beta": beta}), likelihood, reduce=reduce)
    return of_pairs(objective, reference="none")


@method(space={"beta": (2.0, 2.5, 5.0, 10.0), "margin": (0.3, 0.5, 1.0, 1.6)}, of="simpo", differs="plus the likelihood",
        elsewhere={"TRL": "cpo: simpo + cpo_alpha", "study": "~cposimpo, beta .1"})  # fmt: skip
def cpo_simpo(*, beta: float = 2.0, margin: float = 0.5, likelihood: float = 1.0, reduce: str = "token_mean") -> Method:
    """SimPO plus the chosen answer's likelihood (Xu et al. 2024 with Meng et al. 2024).
    Reduces to `simpo` at likelihood = 0."""
    pair = Pairwise(loss="simpo", parameters={"beta": beta, "margin": margin})
    return of_pairs(with_likelihood(pair, likelihood, reduce=reduce), reference="none", rate=1e-6)


@method(space={"beta": (2.5, 5.0, 10.0), "alpha": (0.1, 0.25, 0.5)}, of="simpo", differs="a bent reward of the mean log-prob",
        elsewhere={"TRL": "alphapo", "study": "~alphapo, beta .1"})  # fmt: skip
def alphapo(*, beta: float = 2.5, alpha: float = 0.25, margin: float = 0.1) -> Method:
    """AlphaPO: the reward (1 - e^(-alpha m)) / alpha of a length-mean log-prob m (Gupta et al. 2025, arXiv:2501.03884, its
    settings for Mistral). The less likely an answer, the steeper: e^(-alpha m) is 5.5 at m = -1.7 and alpha = 1.
    Reduces to `simpo` at alpha = 0."""
    return pairs("alpha_po", reference="none", rate=1e-6, beta=beta, alpha=alpha, margin=margin)


@method(space={"margin": (0.2, 0.4, 0.6, 0.8)}, of="simpo", differs="a hinge: beta without end")
def repo(*, margin: float = 0.5) -> Method:
    """RePO: a hinge on the margin of length-mean log-probs, no reference and no beta (Wu et al. 2025, arXiv:2503.07426; its
    margin was not verified).
    Reduces to `slic` for answers of one token, without its likelihood."""
    return pairs("relu_margin", reference="none", rate=1e-6, margin=margin)


@method(space={"beta": (2.0, 5.0, 10.0), "mix": (0.25, 0.5)}, of="simpo", differs="a margin that is partly the reference's")
def rainbow_po(*, beta: float = 5.0, margin: float = 0.1, mix: float = 0.5) -> Method:
    """RainbowPO's mixed reference: the margin to beat is `mix` times the reference's and (1 - mix) times one of all pairs, in
    nats per token (Zhao et al. 2024, arXiv:2410.04203). The paper's other parts are `cauchy_dpo`, `mallows_dpo`, and pairs
    resampled as in `iterative_dpo` (`pairs: rejection`).
    Reduces to `dpo_norm` at mix = 1."""
    return pairs("rainbow", beta=beta, margin=margin, mix=mix)


@method(space={"weight": {"log": (0.03, 0.3)}}, of="orpo", differs="each answer by itself, not the odds ratio")
def asft(*, weight: float = 0.1, reduce: str = "token_mean") -> Method:
    """Aligned SFT: the chosen answer's likelihood, plus `weight` times a classification of either answer by its log odds (Wang et
    al. 2024, arXiv:2409.10571; the weight was not verified)."""
    parts = Likelihood(on="chosen", reduce=reduce), Pairwise(loss="absolute_odds", parameters={})
    return of_pairs(Combined(objectives=parts, coefficients=(1.0, weight)), reference="none", rate=8e-6)
