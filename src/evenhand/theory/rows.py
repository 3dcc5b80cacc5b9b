"""The table of claims: what each promises, what was measured, whether it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from evenhand.theory import bandit, exploration, likelihood, overoptimisation, projections, soft_q


@dataclass(frozen=True, slots=True)
class TheoryRow:
    """One claim. `measured` is a residual; `expected` says whether it must vanish ("0") or must not ("> 0").

    >>> TheoryRow("two roads meet", "0", 3e-9, 1e-6).holds, TheoryRow("two roads part", "> 0", 3e-9, 1e-3).holds
    (True, False)
    """

    claim: str
    expected: str
    measured: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """At most the tolerance where 0 is expected, above it otherwise; a NaN never holds."""
        return self.measured <= self.tolerance if self.expected == "0" else self.measured > self.tolerance


@dataclass(frozen=True, slots=True)
class Claim:
    """A row before it is measured."""

    text: str
    expected: str
    tolerance: float
    measure: Callable[[], float]

    def check(self) -> TheoryRow:
        return TheoryRow(self.text, self.expected, self.measure(), self.tolerance)


def table() -> list[TheoryRow]:
    """Every claim, measured now; some fifteen seconds on one core."""
    return [claim.check() for claim in claims()]


def claims() -> list[Claim]:
    """Every claim, unmeasured."""
    return [*_theorems(), *_boundaries(), *_soft_q(), *_exploration(), *_overoptimisation(), *_optima()]


def _theorems() -> list[Claim]:
    p, one_token, beta = likelihood.problem(), likelihood.problem(horizon=1), 0.5
    return [
        _same(
            "lemma 2.1: soft-optimal control is P ~ ref exp(r/beta)",
            lambda: likelihood.lemma_2_1_backward_induction(p, beta=beta),
            1e-12,
        ),
        _same("lemma 2.1: gradient ascent on E[r] - beta KL reaches it", lambda: likelihood.lemma_2_1_gradient(p, beta=beta)),
        _same("theorem 2.2: RLHF is maximum likelihood", lambda: likelihood.theorem_2_2(p)),
        _same("theorem 2.2: both reach one likelihood", lambda: likelihood.theorem_2_2_likelihood(p), 1e-10),
        _same("theorem 2.2, one token: a bandit's logits are its rewards", lambda: likelihood.theorem_2_2(one_token)),
        _same("theorem 2.3: RLHF with a KL penalty is DPO (beta 1)", lambda: likelihood.theorem_2_3(p, beta=1.0)),
        _same("theorem 2.3: RLHF with a KL penalty is DPO (beta 0.5)", lambda: likelihood.theorem_2_3(p, beta=beta)),
        _same("theorem 2.3: log dpo = log mle + log ref - log Z", lambda: likelihood.theorem_2_3_normaliser(p)),
        _same("theorem 3.1: over simple rewards, RLHF is maximum likelihood", lambda: likelihood.theorem_3_1(p)),
        _same(
            "a local reward beta log pi, at KL weight beta, returns pi",
            lambda: likelihood.local_reward_at_its_own_beta(p, beta=beta),
        ),
        _same(
            "a local reward beta log pi, at KL weight 1, returns pi^beta",
            lambda: likelihood.local_reward_is_tempered(p, beta=beta),
        ),
    ]


def _boundaries() -> list[Claim]:
    p, beta = likelihood.problem(), 0.5
    return [
        _same("projections of a target inside the class: both return it", projections.inside_apart),
        _different("projections of a target outside: forward and reverse part", projections.outside_apart),
        _different("theorem 2.3 as printed, without Z", lambda: likelihood.theorem_2_3_without_normaliser(p)),
        _different("a local reward at KL weight 1 does not return pi", lambda: likelihood.local_reward_at_beta_one(p, beta=beta)),
        _different("restricted policies, free rewards: RLHF is not MLE", lambda: likelihood.restricted_policies_free_rewards(p)),
        _same(
            "restricted policies, same rewards: RLHF is MLE again", lambda: likelihood.restricted_policies_restricted_rewards(p)
        ),
        _different("a reference outside the class: RLHF is not DPO", lambda: likelihood.restricted_policies_foreign_reference(p)),
        _same("uncovered answers: DPO's loss does not see them", lambda: likelihood.uncovered_answers(p)[0], 1e-12),
        _different("uncovered answers: yet the policy moved", lambda: likelihood.uncovered_answers(p)[1]),
        _different(
            "bandit: k3 in the loss and KL in the reward part",
            lambda: _apart(bandit.k3_in_loss()[0], bandit.reinforce_kl_in_reward()[0]),
        ),
    ]


def _soft_q() -> list[Claim]:
    p = likelihood.problem()
    return [
        _same("soft Q: dynamic programming is the sum over what follows", lambda: soft_q.induction_is_enumeration(p), 1e-12),
        _same("soft Q: its softmax is the soft-optimal policy", lambda: soft_q.softmax_of_q_is_optimal(p), 1e-12),
        _same("soft Q: a policy fitted by likelihood has learned it", lambda: soft_q.likelihood_fits_q(p)),
        _same("soft Q: reward to policy to local reward and back, up to a shift", lambda: soft_q.round_trip(p), 1e-12),
        _different("soft Q: mean rewards in place of it give another policy", lambda: soft_q.mean_in_place_of_softmax(p)),
    ]


def _exploration() -> list[Claim]:
    p = exploration.linear_problem()
    return [
        _same("algorithm 1: the enhancer's information pays for its distance", lambda: exploration.worth_its_distance(p)),
        _same("algorithm 1: no random policy of its set has more information", lambda: exploration.none_knows_more(p)),
        _different("algorithm 1: the start has more, and is too far away for it", lambda: exploration.the_start_is_too_far(p)),
    ]


def _overoptimisation() -> list[Claim]:
    return [
        _same("best of n: KL at most log n - (n - 1)/n", overoptimisation.best_of_n_within_its_bound),
        _different("a reward with heavy-tailed errors: gold falls back", lambda: overoptimisation.falls_back("heavy"), 0.5),
        _same("a reward with light-tailed errors: gold stays", lambda: overoptimisation.falls_back("light")),
    ]


def _optima() -> list[Claim]:
    return [_same(f"bandit: {text}", partial(_residual, compare)) for text, compare in bandit.OPTIMA.items()]


def _same(text: str, measure: Callable[[], float], tolerance: float = 1e-6) -> Claim:
    return Claim(text, "0", tolerance, measure)


def _different(text: str, measure: Callable[[], float], tolerance: float = 1e-3) -> Claim:
    return Claim(text, "> 0", tolerance, measure)


def _residual(compare: Callable[[], bandit.Comparison]) -> float:
    return _apart(*compare())


def _apart(logp: Tensor, other: Tensor) -> float:
    """Largest difference of two distributions' probabilities: an answer may well have none."""
    return (logp.exp() - other.exp()).abs().max().item()
