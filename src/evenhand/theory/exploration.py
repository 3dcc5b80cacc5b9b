r"""Online iterative RLHF in the linear case (Dong et al. 2024, arXiv:2405.07863, algorithm 1), with every expectation enumerated.

A reward is linear in d features of an answer, `r(x, a) = <theta, phi(x, a)>`, and policies are tables over A answers to each of
X equally likely prompts. The main agent is the KL-regularised best policy under the fitted reward (equation 7); the enhancer is
the policy whose mean features lie furthest from the main agent's where the data have not been, among those that pay for their
distance (equation 8). Log-probs in nats, arrays [X, A]; features [X, A, d].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from evenhand.core import kl, preference
from evenhand.seeding import generator
from evenhand.theory.optimum import minimise

LAMBDA = 1.0
"""Ridge of the covariance of what has been seen, and of the fit."""
_HALVINGS = 20
_ASCENTS = 12
_SETTLED = 1e-9


@dataclass(frozen=True, slots=True)
class LinearProblem:
    """`features` [X, A, d], the true `theta` [d], the start's log-probs [X, A], and the KL's weight `eta`."""

    features: Tensor
    theta: Tensor
    start: Tensor
    eta: float

    @property
    def reward(self) -> Tensor:
        return self.features @ self.theta


def linear_problem(*, prompts: int = 3, answers: int = 8, size: int = 4, eta: float = 0.5, seed: int = 0) -> LinearProblem:
    """A random instance whose start seldom gives the answers that differ most, so that there is something to explore."""
    draw = generator(seed, "theory", "linear", prompts, answers, size)
    features = torch.randn(prompts, answers, size, generator=draw, dtype=torch.float64)
    theta = torch.randn(size, generator=draw, dtype=torch.float64)
    return LinearProblem(features, 1.5 * theta / theta.norm(), (-0.7 * features.norm(dim=-1)).log_softmax(-1), eta)


def mean_features(p: LinearProblem, logp: Tensor) -> Tensor:
    """E over prompts and answers of the features, [d]."""
    return (logp.exp().unsqueeze(-1) * p.features).sum(1).mean(0)


def divergence(logp: Tensor, other: Tensor) -> Tensor:
    """Mean over prompts of KL(pi, other), nats."""
    return kl.exact(logp, other).mean()


def value(p: LinearProblem, logp: Tensor) -> Tensor:
    """`J(pi) = E[r*] - eta KL(pi, start)` (equation 2)."""
    return (logp.exp() * p.reward).sum(-1).mean() - p.eta * divergence(logp, p.start)


def main_policy(p: LinearProblem, theta: Tensor) -> Tensor:
    """The best policy under the reward of `theta` (equation 7): `start exp(r / eta)`, normalised (equation 3)."""
    return (p.start + p.features @ theta / p.eta).log_softmax(-1)


def information(p: LinearProblem, sigma: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Information gain of a pair of policies: the norm of their difference in mean features under the inverse of `sigma`."""
    gap = mean_features(p, second) - mean_features(p, first)
    return (gap @ torch.linalg.solve(sigma, gap)).clamp_min(0).sqrt()


def covariance(p: LinearProblem, first: Tensor, second: Tensor) -> Tensor:
    """E of the outer product of an answer pair's feature difference, one answer of each policy, [d, d]."""
    gap = p.features.unsqueeze(2) - p.features.unsqueeze(1)
    weight = (first.unsqueeze(2) + second.unsqueeze(1)).exp()
    return torch.einsum("xab,xabi,xabj->ij", weight, gap, gap) / len(p.features)


def enhancer(p: LinearProblem, sigma: Tensor, main: Tensor) -> Tensor:
    """The policy of most information within `{pi: eta KL(pi, main) <= information}` (equation 8).

    For a direction w the furthest policy is `main exp(s <w, phi>)`, and w the gradient of the norm: the two are found in turn
    from both ends of every axis of `sigma`. The norm is convex, so that each turn can only add information; the best end is
    returned.
    """
    axes = torch.linalg.eigh(sigma).eigenvectors.T
    ends = [_ascend(p, sigma, main, sign * axis) for axis in axes for sign in (1.0, -1.0)]
    return max(ends, key=lambda logp: float(information(p, sigma, main, logp)))


def _ascend(p: LinearProblem, sigma: Tensor, main: Tensor, direction: Tensor) -> Tensor:
    found, before = main, 0.0
    for _ in range(_ASCENTS):
        found = _furthest(p, sigma, main, direction / direction.norm())
        gap = mean_features(p, found) - mean_features(p, main)
        direction = torch.linalg.solve(sigma, gap)
        gain = float(gap @ direction)
        if gain <= before + _SETTLED:
            break
        before = gain
    return found


def _furthest(p: LinearProblem, sigma: Tensor, main: Tensor, direction: Tensor) -> Tensor:
    """The furthest policy along a direction that still pays for its distance: both grow with s, the distance faster."""

    def tilted(s: float) -> Tensor:
        return (main + s * (p.features @ direction)).log_softmax(-1)

    def affordable(s: float) -> bool:
        return bool(p.eta * divergence(tilted(s), main) <= information(p, sigma, main, tilted(s)))

    low, high = 0.0, 1.0
    while affordable(high) and high < 1e3:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if affordable(middle) else (low, middle)
    return tilted(low)


Partner = Callable[[LinearProblem, Tensor, Tensor], Tensor]
"""(problem, sigma, main policy) -> the second policy of a round."""
PARTNERS: Mapping[str, Partner] = {
    "enhancer": enhancer,
    "itself": lambda p, sigma, main: main,
    "start": lambda p, sigma, main: p.start,
    "best of 8": lambda p, sigma, main: best_of(main, main - p.start, 8),
}
"""Who answers beside the main agent: algorithm 1, plain on-policy pairs, the start, best-of-n by the fitted reward."""


def best_of(logp: Tensor, reward: Tensor, n: int) -> Tensor:
    """The best of n answers by a reward, as a policy: differences of powers of the cumulative distribution."""
    order = reward.argsort(-1)
    below = logp.exp().gather(-1, order).cumsum(-1).clamp(max=1.0)
    mass = torch.diff(below**n, dim=-1, prepend=torch.zeros_like(below[:, :1]))
    return torch.zeros_like(mass).scatter(-1, order, mass).clamp_min(1e-12).log().log_softmax(-1)


@dataclass(frozen=True, slots=True)
class Round:
    """What a round began with: the main agent's gap to the best policy's value, and the information of its pair."""

    gap: float
    information: float
    least_seen: float
    """The smallest eigenvalue of the covariance: how much is known of the direction that is known least."""


def rounds(p: LinearProblem, partner: Partner, *, count: int = 8, batch: int = 20, seed: int = 0) -> list[Round]:
    """Algorithm 1 with `batch` labelled pairs a round, drawn by `seed`; labels are Bradley-Terry draws of the true reward."""
    draw = generator(seed, "theory", "rounds")
    sigma = LAMBDA * torch.eye(len(p.theta), dtype=torch.float64)
    best, seen, told = float(value(p, main_policy(p, p.theta))), torch.zeros(0, len(p.theta), dtype=torch.float64), []
    for _ in range(count):
        main = main_policy(p, _fit(seen))
        second = partner(p, sigma, main)
        gain = float(information(p, sigma, main, second))
        told.append(Round(best - float(value(p, main)), gain, float(torch.linalg.eigvalsh(sigma)[0])))
        seen = torch.cat([seen, _pairs(p, main, second, batch, draw)])
        sigma = sigma + batch * covariance(p, main, second)
    return told


def _pairs(p: LinearProblem, first: Tensor, second: Tensor, batch: int, draw: torch.Generator) -> Tensor:
    """Feature differences of labelled pairs, preferred less rejected, [batch, d]."""
    prompt = torch.randint(len(p.features), (batch,), generator=draw)
    answers = [torch.multinomial(side[prompt].exp(), 1, generator=draw).squeeze(-1) for side in (first, second)]
    gap = p.features[prompt, answers[0]] - p.features[prompt, answers[1]]
    won = torch.rand(batch, generator=draw, dtype=torch.float64) < torch.sigmoid(gap @ p.theta)
    return torch.where(won.unsqueeze(-1), gap, -gap)


def _fit(seen: Tensor) -> Tensor:
    """Maximum likelihood with a ridge: `theta` [d] from the feature differences that were preferred."""
    start = torch.zeros(seen.shape[1], dtype=torch.float64)
    return minimise(
        lambda w: preference.bradley_terry(seen @ w, torch.zeros(len(seen)).double()).sum() + LAMBDA / 2 * w @ w, start
    )


def worth_its_distance(p: LinearProblem) -> float:
    """How far the enhancer leaves its set: 0 where `eta KL <= information`."""
    sigma, main = _begun(p)
    found = enhancer(p, sigma, main)
    return max(0.0, float(p.eta * divergence(found, main) - information(p, sigma, main, found)))


def none_knows_more(p: LinearProblem, *, tries: int = 1000, seed: int = 0) -> float:
    """By how much any of `tries` random policies of the set has more information than the enhancer: 0 where it is the most."""
    sigma, main = _begun(p)
    most = float(information(p, sigma, main, enhancer(p, sigma, main)))
    draw, excess = generator(seed, "theory", "tries"), 0.0
    for _ in range(tries):
        scale = 3 * torch.rand(1, generator=draw, dtype=torch.float64)
        other = (main + scale * torch.randn(main.shape, generator=draw, dtype=torch.float64)).log_softmax(-1)
        gain = float(information(p, sigma, main, other))
        if float(p.eta * divergence(other, main)) <= gain:
            excess = max(excess, gain - most)
    return excess


def the_start_is_too_far(p: LinearProblem) -> float:
    """By how much the start, which has more information than the enhancer, does not pay for its distance."""
    sigma, main = _begun(p)
    return float(p.eta * divergence(p.start, main) - information(p, sigma, main, p.start))


def _begun(p: LinearProblem) -> tuple[Tensor, Tensor]:
    """After twenty pairs of the start: what has been seen, and the main agent of the true reward."""
    sigma = LAMBDA * torch.eye(len(p.theta), dtype=torch.float64) + 20 * covariance(p, p.start, p.start)
    return sigma, main_policy(p, p.theta)
