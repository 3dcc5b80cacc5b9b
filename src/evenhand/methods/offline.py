"""Methods that learn from a fixed dataset: likelihood, reward models, and the offline preference losses."""

from __future__ import annotations

from dataclasses import replace

from evenhand.core.process import AGGREGATES
from evenhand.errors import UserError, one_of
from evenhand.methods import strengths
from evenhand.methods.pairs import of_pairs, pairs, with_likelihood
from evenhand.methods.ratio_limits import ratio_limits
from evenhand.objectives import BradleyTerry, Combined, Correctness, Kto, Likelihood, Pairwise, PolicyGradient, Transport
from evenhand.rewards.process import SEPARATOR
from evenhand.train.method import BINARY, COMPARISONS, DEMONSTRATIONS, PREFERENCES, Method, method

# ---- likelihood and reward models -----------------------------------------------------------------------------------


@method(elsewhere={"TRL": "SFTTrainer", "OpenRLHF": "sft", "verl": "sft", "study": "sft"})
def sft(*, reduce: str = "token_mean") -> Method:
    """Supervised fine-tuning: maximum likelihood of demonstrations, every token alike (or `sequence_mean`).
    Reduces to the cross-entropy of completion tokens."""
    return Method(objective=Likelihood(reduce=reduce), data=DEMONSTRATIONS, learning_rate=2e-5)


@method(of="sft", differs="a token weighs by its own probability", elsewhere={"TRL": "loss_type: dft"})
def dft(*, reduce: str = "token_mean") -> Method:
    """Dynamic fine-tuning: each token's likelihood times its probability, held constant (Wu et al. 2025, arXiv:2508.05629).
    Tokens that the policy would hardly write teach little. Reduces to `sft` in the direction of each token's gradient."""
    return Method(objective=Likelihood(reduce=reduce, weighting="probability"), data=DEMONSTRATIONS, learning_rate=2e-5)


@method(elsewhere={"TRL": "RewardTrainer", "OpenRLHF": "rm", "study": "rm"})
def reward_model(*, margin_scale: float = 0.0, centring: float = 0.01) -> Method:
    """Bradley-Terry reward model on all pairs of each group (Ouyang et al. 2022, eq. 1; margins: Llama 2, eq. 2)."""
    objective = BradleyTerry(margin_scale=margin_scale, centring=centring)
    return Method(objective=objective, data=PREFERENCES, network="reward", learning_rate=2e-6)


@method(revision=1, of="reward_model", differs="right or wrong, each answer by itself")
def outcome_reward_model() -> Method:
    """Outcome reward model: whether an answer is right, as the cross-entropy of its label, read at the last token (Cobbe et al.
    2021, arXiv:2110.14168). Its score is the logit of being right, with a level of its own where Bradley-Terry's has none; a
    label between 0 and 1 is a probability. Reduces to `reward_model` without centring in what it orders, where every pair has
    one right and one wrong answer."""
    return Method(objective=Correctness(), data=BINARY, network="reward", learning_rate=2e-6)


@method(revision=1, of="outcome_reward_model", differs="every step by itself")
def process_reward_model(*, aggregate: str = "min", separator: str = SEPARATOR) -> Method:
    """Process reward model: whether each step of an answer is right, read at the step's last token (Uesato et al. 2022,
    arXiv:2211.14275; Lightman et al. 2023, arXiv:2305.20050). `aggregate` joins the steps of an answer: min, product, last, mean,
    or differences, whose reward is earned step by step. Reduces to `outcome_reward_model` for answers of one step."""
    one_of("aggregate", aggregate, AGGREGATES, where="process_reward_model")
    if not separator:
        fix = "give what steps end with, such as a line break, or remove it"
        raise UserError("an empty separator ends no step", where="separator", fix=fix)
    steps = {"kind": "process", "aggregate": aggregate, "separator": separator}
    return Method(objective=Correctness(), data=BINARY, network="reward", learning_rate=2e-6, serves=steps)


@method(was="local", of="dpo", differs="no reference")
def local_reward_model(*, beta: float = 1 / 53) -> Method:
    """The local reward model r = beta log pi(y | x), no reference (All Roads Lead to Likelihood, section 2, appendix A.5).
    Reduces to `dpo` against a reference that gives every answer probability 1."""
    return pairs("local", reference="none", rate=3e-7, beta=beta)


@method
def preference_model() -> Method:
    """Pairwise preference model: both answers in one text, the loss on the letter A or B of the better one, whose place is drawn
    (Dong et al. 2024, section 2.1)."""
    return Method(objective=Likelihood(), data=COMPARISONS, learning_rate=5e-6)


# ---- offline preference methods -------------------------------------------------------------------------------------


@method(space=strengths.BETA, also=("sigmoid",), of="reward_model", differs="the score is the policy's own log-ratio",
        elsewhere={"TRL": "sigmoid", "OpenRLHF": "dpo", "study": "dpo"})  # fmt: skip
def dpo(*, beta: float = 0.1, temperature: float = 1.0) -> Method:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7).

    `temperature` divides the logits of policy and reference: for pairs sampled at that temperature ("All Roads Lead to
    Likelihood", section 3). In raw logits the loss then acts like beta / temperature."""
    method = pairs("dpo", beta=beta)
    return replace(method, temperature=temperature) if temperature != 1.0 else method


@method(space=strengths.BETA, of="dpo", differs="labels wrong with some probability",
        elsewhere={"OpenRLHF": "label_smoothing", "study": "cdpo"})  # fmt: skip
def cdpo(*, beta: float = 0.1, flip: float = 0.1) -> Method:
    """Conservative DPO: labels are wrong with probability `flip` (Mitchell 2023).
    Reduces to `dpo` at flip = 0."""
    return pairs("cdpo", beta=beta, flip=flip)


@method(space=strengths.BETA, also=("robust",), of="dpo", differs="unbiased for the labels before they were flipped",
        elsewhere={"TRL": "robust", "study": "~robust_dpo, plus for minus"})  # fmt: skip
def robust_dpo(*, beta: float = 0.1, flip: float = 0.1) -> Method:
    """The unbiased loss under flipped labels (Chowdhury et al. 2024, arXiv:2403.00409). It never saturates.
    Reduces to `dpo` at flip = 0."""
    return pairs("robust", beta=beta, flip=flip)


@method(space=strengths.TAU, of="dpo", differs="a square around a target margin",
        elsewhere={"TRL": "~online only", "OpenRLHF": "ipo", "study": "ipo"})  # fmt: skip
def ipo(*, tau: float = 0.1) -> Method:
    """Identity preference optimisation on summed log-probs, as printed (Azar et al. 2023, eq. 17)."""
    return pairs("ipo", tau=tau)


@method(space=strengths.TAU, of="ipo", differs="log-ratios per token", elsewhere={"TRL": "ipo"})
def ipo_mean(*, tau: float = 0.1) -> Method:
    """IPO on length-mean log-ratios, as its authors ran it; tau does not transfer from `ipo`.
    Reduces to `ipo` for answers of one token."""
    return pairs("ipo_mean", tau=tau)


@method(was="hinge", space=strengths.BETA, of="dpo", differs="a hinge", elsewhere={"TRL": "hinge", "study": "hinge"})
def rso_hinge(*, beta: float = 0.1) -> Method:
    """RSO's hinge on the DPO margin (Liu et al. 2023, arXiv:2309.06657)."""
    return pairs("hinge", beta=beta)


@method(space={"margin": {"log": (0.3, 3.0)}}, of="rso_hinge", differs="no reference, plus the likelihood")
def slic(*, margin: float = 1.0, likelihood: float = 0.1) -> Method:
    """SLiC-HF: a hinge on log-probs, without a reference, plus the chosen answer's likelihood (Zhao et al. 2023)."""
    pair = Pairwise(loss="slic", parameters={"margin": margin})
    return of_pairs(with_likelihood(pair, likelihood, reduce="sequence_sum"), reference="none")


@method(space={"beta": (2.0, 2.5, 5.0, 10.0), "margin": (0.3, 0.5, 1.0, 1.6)}, of="local_reward_model",
        differs="log-probs per token, against a margin", elsewhere={"TRL": "cpo: simpo", "study": "~simpo, beta .1"})  # fmt: skip
def simpo(*, beta: float = 2.0, margin: float = 0.5) -> Method:
    """SimPO: length-mean log-probs against a margin, no reference (Meng et al. 2024, eq. 6).
    Reduces to `local_reward_model` for answers of one token, at margin = 0."""
    return pairs("simpo", reference="none", rate=1e-6, beta=beta, margin=margin)


@method(space={"beta": (0.01, 0.03, 0.1, 0.3)}, also=("aot_unpaired",), of="dpo", differs="two sorted distributions",
        elsewhere={"TRL": "~aot_unpaired, per micro-batch", "study": "~aot, per micro-batch"})  # fmt: skip
def aot(*, beta: float = 0.1) -> Method:
    """Alignment by optimal transport, unpaired: chosen dominate rejected, sorted over the step (Melnyk et al. 2024, eq. 9).
    Reduces to `dpo` with one pair per step."""
    return of_pairs(Transport(form="unpaired", beta=beta))


@method(space={"beta": (0.01, 0.03, 0.1, 0.3)}, of="aot", differs="margins sorted, not answers",
        elsewhere={"TRL": "~aot, per micro-batch"})  # fmt: skip
def aot_paired(*, beta: float = 0.1) -> Method:
    """AOT, paired: policy margins dominate reference margins, sorted over the step (Melnyk et al. 2024, eq. 7).
    Reduces to `dpo` with one pair per step."""
    return of_pairs(Transport(form="paired", beta=beta))


@method(space={"weight": {"log": (0.03, 0.3)}}, of="sft", differs="plus the log odds ratio",
        elsewhere={"TRL": "ORPOTrainer", "study": "orpo"})  # fmt: skip
def orpo(*, weight: float = 0.1, reduce: str = "token_mean") -> Method:
    """Odds-ratio preference optimisation with its likelihood term (Hong et al. 2024, eq. 6), of every token of the chosen answers
    alike or by `reduce: sequence_mean`. The published code also learns the prompt.
    Reduces to `orpo_odds` without the likelihood."""
    nll, odds = Likelihood(on="chosen", reduce=reduce), Pairwise(loss="orpo", parameters={})
    return of_pairs(Combined(objectives=(nll, odds), coefficients=(1.0, weight)), reference="none", rate=8e-6)


@method(of="orpo", differs="without the likelihood")
def orpo_odds() -> Method:
    """ORPO's odds-ratio term alone, for a policy that had its SFT already."""
    return pairs("orpo", reference="none", rate=8e-6)


@method(revision=1, space=strengths.BETA, of="dpo", differs="single labelled answers against a common reference point",
        elsewhere={"TRL": "KTOTrainer", "study": "~kto, logistic, matched"})  # fmt: skip
def kto(*, beta: float = 0.1, weight_desirable: float = 1.0, weight_undesirable: float = 1.0) -> Method:
    """Kahneman-Tversky optimisation of single labelled answers (Ethayarajh et al. 2024, eq. 8). Pairs become two labels, each a
    row of its own: a step of n rows holds as many answers as n / 2 pairs."""
    objective = Kto(beta=beta, weight_desirable=weight_desirable, weight_undesirable=weight_undesirable)
    return Method(objective=objective, data=BINARY, reference="start", learning_rate=5e-6)


@method(revision=1, of="offline_reinforce", differs="a taper for bad answers")
def topr(*, baseline: float = 0.0, low: float = 0.0, high: float = 1.0, good_low: float = 1.0, good_high: float = 1.0) -> Method:
    """Tapered off-policy REINFORCE on labelled answers, the start standing in for their unknown author (Le Roux et al. 2025).
    With a share p of good answers, baseline c makes them weigh like a share p (1 - c) / (1 + (1 - 2p) c): 0.6 makes 0.5 like 0.2.
    Answers weigh by their ratio to that author, held between limits: by default good ones by 1, bad ones by at most 1.
    Reduces to `offline_reinforce` at low = high = good_low = good_high = 1."""
    if not -1 < baseline < 1:
        why = "labels are +1 and -1: less such a baseline, both would be pushed the same way"
        raise UserError(f"baseline is {baseline:g}", where="topr", why=why, fix="use a number between -1 and 1")
    objective = PolicyGradient(surrogate="topr", parameters=ratio_limits(low, high, good_low, good_high))
    return Method(objective=objective, data=BINARY, reference="start", label_baseline=baseline, learning_rate=3e-6)


@method(revision=1, of="kto", differs="linear: no saturation")
def offline_reinforce(*, baseline: float = 0.0) -> Method:
    """REINFORCE on labelled answers as if the policy had written them, the label +1 or -1 minus `baseline`. It has no optimum:
    the loss is linear in log pi, so a bad answer is pushed down for ever. A control, and what `topr` mends.
    Reduces, on a preference pair, to the leave-one-out gradient of `rloo` with rewards 1 and 0."""
    objective = PolicyGradient(surrogate="reinforce", reduce="sequence_sum")
    return Method(objective=objective, data=BINARY, label_baseline=baseline, learning_rate=3e-6)


@method(space=strengths.BETA, of="dpo", differs="plus the likelihood",
        elsewhere={"TRL": "loss_type: [sigmoid, sft]", "OpenRLHF": "nll_coef", "study": "dpnll"})  # fmt: skip
def rpo(*, beta: float = 0.1, likelihood: float = 1.0, reduce: str = "token_mean") -> Method:
    """DPO plus the chosen answer's likelihood (Pang et al. 2024, eq. 1), over the tokens of the step as in TRL; the paper's mean
    over each answer's own tokens is `reduce: sequence_mean`.
    Reduces to `dpo` at likelihood = 0."""
    return of_pairs(with_likelihood(Pairwise(loss="dpo", parameters={"beta": beta}), likelihood, reduce=reduce))


@method(space=strengths.BETA, of="dpo", differs="a price per token", elsewhere={"study": "~rdpo, sign reversed"})
def r_dpo(*, beta: float = 0.1, alpha: float = 0.01) -> Method:
    """Length-regularised DPO, R-DPO: the implicit reward pays `alpha` per token (Park et al. 2024, arXiv:2403.19159). Public code
    has it with the other sign, which rewards length. The LD-DPO of Liu et al. 2024 is `ld_dpo`.
    Reduces to `dpo` at alpha = 0."""
    return pairs("length_desensitised", beta=beta, alpha=alpha)
