"""Methods on several rated answers at once, and on fresh pairs: regression, games, optimism."""

from __future__ import annotations

from dataclasses import replace

from evenhand.errors import UserError, one_of
from evenhand.methods import strengths
from evenhand.methods.gradients import gradient
from evenhand.objectives import Combined, DirectReward, Optimism, Pairwise, PolicyGradient, RatedGroups, RewardRegression
from evenhand.protocols import Objective
from evenhand.train.method import PREFERENCES, PROMPTS, Method, method
from evenhand.train.policies import GENERATOR, INITIAL_POLICY, MIXTURE
from evenhand.train.rollouts import Exploration, Rollouts, Schedule, credits, selections
from evenhand.train.rollouts.optimistic import AgainstPartner, GroupWinRate, LastMarked, PartnerMarked, SoftValue


def _rated(loss: str, **parameters: float) -> Method:
    objective = RatedGroups(loss=loss, parameters=parameters)
    return Method(objective=objective, data=PREFERENCES, reference="start", learning_rate=5e-7)


def _fresh(objective: Objective, rollouts: Rollouts, *, reference: str = INITIAL_POLICY) -> Method:
    return Method(objective=objective, data=PROMPTS, rollouts=rollouts, reference=reference, learning_rate=5e-7)


def _best_vs_worst(count: int) -> Rollouts:
    return Rollouts(completions_per_prompt=count, credit=selections.best_vs_worst)


def _rounds(steps: int, rounds: int, count: int) -> Rollouts:
    """A rollout of `count` answers per prompt for each round, trained on once."""
    return replace(_best_vs_worst(count), schedule=Schedule(-(-steps // rounds)))


# ---- all rated answers of a prompt ----------------------------------------------------------------------------------


@method(space={**strengths.WEAK, "alpha": (0.01, 0.1, 1.0)}, of="dpo", differs="all answers at once, by their rewards")
def infonca(*, beta: float = 0.01, alpha: float = 0.1) -> Method:
    """InfoNCA: the softmax of the k implicit rewards learns the softmax of the k rewards over `alpha` (Chen et al. 2024,
    arXiv:2402.05369). Of pairs, rankings or ratings.
    Reduces to `dpo` for pairs as alpha goes to 0."""
    return _rated("infonca", beta=beta, alpha=alpha)


@method(space={**strengths.WEAK, "alpha": (0.01, 0.1, 1.0)}, of="infonca", differs="each answer against noise: levels are pinned")
def nca(*, beta: float = 0.01, alpha: float = 0.1) -> Method:
    """NCA of k rated answers: each is told from noise, weighed by the softmax of the rewards over `alpha` (Chen et al. 2024,
    arXiv:2402.05369). As in the authors' code the first term is a sum and the second a mean.
    Reduces to `nca_pair` for pairs as alpha goes to 0."""
    return _rated("nca", beta=beta, alpha=alpha)


@method(
    revision=1, space={"beta": (3e-4, 1e-3, 3e-3, 1e-2)}, of="sppo", differs="quantiles of the reward as targets, level known"
)
def qrpo(*, beta: float = 0.001) -> Method:
    """Quantile reward policy optimisation: the log-ratio regresses on the answer's quantile among the rewards of its group, whose
    soft value is known (Matrenok et al. 2025, arXiv:2507.08068). The start is meant to have written the group's answers; the more
    of them, the finer the quantile. The constant is exact for every beta, where the authors' code approximates it for small
    ones."""
    return _rated("qrpo", beta=beta)


@method(space=strengths.TAU, of="rebel", differs="single answers: a learned value in place of the other answer")
def dro(*, tau: float = 0.1, critic: str = "separate") -> Method:
    """Direct reward optimisation, DRO-V: rated answers, each by itself; the reward is to be `tau` times the log-ratio plus a
    value of the prompt that is learned beside it (Richemond et al. 2024, arXiv:2405.19107). `critic` is a separate network, as
    in the paper, or a `head` on the policy. The defaults are ours. Not the distributionally robust `dr_dpo`.
    Reduces to `rebel` at eta = 1 / tau, in the gradient of a pair, where the value is at its own optimum."""
    networks = {"head": "value", "separate": "critic"}
    return Method(
        objective=DirectReward(tau=tau), data=PREFERENCES, reference="start", learning_rate=5e-7,
        network=networks[one_of("critic", critic, networks, where="dro")],
    )  # fmt: skip


# ---- fresh pairs ----------------------------------------------------------------------------------------------------


@method(space=strengths.TAU, of="online_dpo", differs="IPO's square", elsewhere={"TRL": "OnlineDPOTrainer: ipo"})
def online_ipo(*, completions_per_prompt: int = 2, tau: float = 0.1) -> Method:
    """IPO on fresh pairs, best against worst of the group (Calandriello et al. 2024, arXiv:2403.08635): its fixed point is a Nash
    equilibrium of the regularised game if a preference model labels them."""
    return _fresh(Pairwise(loss="ipo", parameters={"tau": tau}), _best_vs_worst(completions_per_prompt))


@method(space={"eta": {"log": (0.1, 100.0)}}, of="rebel", differs="fresh pairs, against the policy that wrote them")
def rebel_online(*, steps: int, rounds: int = 10, completions_per_prompt: int = 2, eta: float = 1.0) -> Method:
    """REBEL as published: each round samples from the current policy, and the difference of log-ratios to it regresses on `eta`
    times the rewards' (Gao et al. 2024, arXiv:2404.16767)."""
    objective = Pairwise(loss="rebel", parameters={"eta": eta})
    return _fresh(objective, _rounds(steps, rounds, completions_per_prompt), reference=GENERATOR)


@method(space={"optimism": {"log": (1e-3, 1.0)}}, of="online_dpo", differs="plus the chosen answers' log-ratio: optimism")
def vpo_online(*, completions_per_prompt: int = 2, beta: float = 0.1, optimism: float = 0.1) -> Method:
    """Value-incentivised preference optimisation on fresh pairs: plus `optimism` beta times the log-ratio of the chosen answers
    (Cen et al. 2024, arXiv:2405.19320), the other sign than on fixed data, see `vpo`. Its default was not verified.
    Reduces to `online_dpo` at optimism = 0."""
    objective = Pairwise(loss="calibrated", parameters={"beta": beta, "weight": optimism})
    return _fresh(objective, _best_vs_worst(completions_per_prompt))


@method(space={"optimism": {"log": (1e-6, 1e-3)}}, of="online_dpo", differs="the start's answers made less likely")
def xpo(*, beta: float = 0.1, optimism: float = 1e-5) -> Method:
    """Exploratory preference optimisation: pairs of one answer of the policy and one of the start, and the start's answer is made
    less likely by `optimism` per nat (Xie et al. 2024, arXiv:2405.21046, algorithm 1).
    Reduces to `online_dpo` on such pairs at optimism = 0."""
    credit = PartnerMarked("partner_marked", selections.best_vs_worst.function)
    explored = Rollouts(completions_per_prompt=2, exploration=Exploration(partner=INITIAL_POLICY), credit=credit)
    parts = Pairwise(loss="dpo", parameters={"beta": beta}), Optimism()
    return _fresh(Combined(objectives=parts, coefficients=(1.0, optimism)), explored)


@method(space={"optimism": (0.001, 0.003, 0.005)}, of="iterative_dpo", differs="the last round's greedy answers made less likely")
def selm(*, steps: int, rounds: int = 3, completions_per_prompt: int = 3, beta: float = 0.01, optimism: float = 0.001) -> Method:
    """Self-exploring language models: iterative DPO, plus `optimism` beta per nat of the round's own greedy answer (Zhang et al.
    2024, arXiv:2405.19332). The last of `completions_per_prompt` answers is the greedy one; the pair is of the others."""
    if completions_per_prompt < 3:
        raise UserError(f"{completions_per_prompt} completions per prompt", where="selm", why="a pair and the greedy answer",
                        fix="use at least 3")  # fmt: skip
    temperatures = (1.0,) * (completions_per_prompt - 1) + (0.0,)
    rollouts = replace(
        _rounds(steps, rounds, completions_per_prompt), exploration=Exploration(temperatures=temperatures),
        credit=LastMarked("last_marked", selections.best_vs_worst.function),
    )  # fmt: skip
    parts = Pairwise(loss="dpo", parameters={"beta": beta}), Optimism()
    return replace(_fresh(Combined(objectives=parts, coefficients=(1.0, optimism * beta)), rollouts), temperature=1.0)


@method(revision=1, space={"beta": (3e-4, 1e-3, 3e-3)}, of="qrpo", differs="the soft value estimated from the start's answers",
        elsewhere={"TRL": "A2POTrainer"})  # fmt: skip
def a_star_po(*, completions_per_prompt: int = 16, beta: float = 1e-3, value_temperature: float = 0.5) -> Method:
    """A*-PO: the policy's own answers regress on the reward less its soft value, which the start's answers tell (Brantley et al.
    2025, arXiv:2505.20686). The start writes half of every group, anew at every visit, where the paper samples it once before
    training, and all of the policy's half are learned from, where the paper takes one. At `value_temperature` = beta the optimum
    is the tilted reference."""
    if completions_per_prompt < 2:
        raise UserError(f"{completions_per_prompt} completions per prompt", where="a_star_po",
                        why="one is the policy's, one the start's, which tells the soft value", fix="use at least 2")  # fmt: skip
    rollouts = Rollouts(
        completions_per_prompt=completions_per_prompt, exploration=Exploration(partner=INITIAL_POLICY),
        credit=SoftValue(temperature=value_temperature),
    )  # fmt: skip
    return _fresh(RewardRegression(beta=beta), rollouts)


# ---- games ----------------------------------------------------------------------------------------------------------


@method(space={"eta": {"log": (1e-3, 1.0)}}, of="online_ipo", differs="held to the last iterate as well as to the start")
def inpo(*, steps: int, rounds: int = 3, completions_per_prompt: int = 8, eta: float = 0.0075, ratio: float = 1 / 3) -> Method:
    """Iterative Nash policy optimisation: IPO's square around a mixture of the start's and the last iterate's margins, `ratio` of
    the first (Zhang et al. 2024, arXiv:2407.00617; its defaults were not verified).
    Reduces to `online_ipo` on such rounds at ratio = 1 with tau = eta."""
    if not 0 < ratio <= 1:
        raise UserError(
            f"ratio is {ratio:g}", where="inpo", why="it is tau / eta, the start's share", fix="use above 0, at most 1"
        )
    objective = Pairwise(loss="inpo", parameters={"eta": eta, "ratio": ratio})
    return _fresh(objective, _rounds(steps, rounds, completions_per_prompt))


@method(space=strengths.BETA, of="iterative_dpo", differs="soft labels from win rates within the group")
def dno(*, steps: int, rounds: int = 3, completions_per_prompt: int = 6, beta: float = 0.1) -> Method:
    """Direct Nash optimisation: rounds of DPO whose labels are sigmoid of the difference of two answers' win rates against the
    group, which stands for the current policy (Rosset et al. 2024, arXiv:2404.03715). Without the paper's teacher and its filter
    of pairs by margin."""
    rollouts = replace(_rounds(steps, rounds, completions_per_prompt), shaping=GroupWinRate())
    return _fresh(Pairwise(loss="soft_dpo", parameters={"beta": beta}), rollouts)


@method(space=strengths.KL, of="rloo", differs="the win rate within the group as reward")
def spo_minimax(*, completions_per_prompt: int = 8, kl: float = 0.05) -> Method:
    """Self-play preference optimisation: an answer's reward is its win rate against the other answers of its group, so that
    preferences may be cyclic (Swamy et al. 2024, arXiv:2401.04056). Without a KL its credit is half of `rank_advantage`'s.
    Not the SPO of `spo_silu`."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, shaping=GroupWinRate(), credit=credits.centre)
    return gradient(PolicyGradient(surrogate="reinforce", reduce="sequence_sum"), rollouts, kl=kl)


@method(space={**strengths.KL, "mixture": (0.125, 0.25, 0.5)}, of="spo_minimax", differs="against a mixture with the start")
def nash_md(*, completions_per_prompt: int = 2, mixture: float = 0.5, kl: float = 0.1) -> Method:
    """Nash-MD: an answer's credit is the chance that it is preferred to answers of the mixture `pi^(1 - mixture) start^mixture`,
    less a half; the mixture is sampled token by token and not trained on; KL in the reward, by whole answers (Munos et al. 2023,
    arXiv:2312.00886). The chance is Bradley-Terry's of the two rewards. Half of `completions_per_prompt` are the mixture's.
    Some codes take the KL of each token alone, which ignores what a token leads to.
    Reduces to self-play at mixture = 0, and to play against the start at 1."""
    if not 0 <= mixture <= 1:
        raise UserError(f"mixture is {mixture:g}", where="nash_md", why="it is the start's share", fix="use 0 to 1")
    if completions_per_prompt < 2:
        raise UserError(f"{completions_per_prompt} completions per prompt", where="nash_md",
                        why="one is the policy's, one the mixture's", fix="use at least 2")  # fmt: skip
    rollouts = Rollouts(
        completions_per_prompt=completions_per_prompt, credit=AgainstPartner(),
        exploration=Exploration(partner=MIXTURE, mixture=mixture),
    )  # fmt: skip
    return gradient(PolicyGradient(surrogate="reinforce", reduce="sequence_sum"), rollouts, kl=kl)
