"""A reward that errs, followed too far: gold against proxy reward over the KL to the reference, without any sampling.

Of K answers under a uniform reference the gold reward is standard normal, and the proxy is gold plus an error, both scaled to
deviation 1. Two ways lead away from the reference: the tilted policies `ref exp(proxy / beta)`, where every KL-regularised
objective ends, and best-of-n by the proxy. With errors of light tails gold rises and stays; with heavy tails the answers of the
highest proxy are those of the largest errors, and gold falls back (Gao et al. 2023, arXiv:2210.10760).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evenhand.seeding import generator
from evenhand.stats import kl_bound

ANSWERS = 20_000
FARTHEST = 4.0
"""Nats up to which the ways are followed: beyond, the few best answers of the list decide, which are an accident of its draw."""
DEGREES = 2.2
"""Of freedom of the heavy tail: a variance exists, barely."""


@dataclass(frozen=True, slots=True)
class Away:
    """A policy's KL to the reference in nats, and its mean proxy and gold reward."""

    kl: float
    proxy: float
    gold: float


def rewards(*, heavy: bool, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(proxy, gold) of every answer, [K]."""
    draw = generator(seed, "theory", "proxy")
    gold = torch.randn(ANSWERS, generator=draw, dtype=torch.float64)
    error = torch.randn(ANSWERS, generator=draw, dtype=torch.float64)
    if heavy:
        halves = torch.rand(ANSWERS, generator=draw, dtype=torch.float64)
        error = torch.from_numpy(_student(error.numpy(), halves.numpy()))
    proxy = gold / gold.std() + error / error.std()
    return proxy / proxy.std(), gold / gold.std()


def _student(normal: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Student's t of `DEGREES` from a normal and a uniform draw: the normal over the root of a scaled chi-squared."""
    from scipy.stats import chi2

    return normal / np.sqrt(chi2.ppf(uniform, DEGREES) / DEGREES)


def tilted(proxy: Tensor, gold: Tensor, betas: Sequence[float]) -> list[Away]:
    """Uniform times exp(proxy / beta), from weak to strong."""
    return [_away((proxy / beta).log_softmax(-1), proxy, gold) for beta in sorted(betas, reverse=True)]


def best_of(proxy: Tensor, gold: Tensor, sizes: Sequence[int]) -> list[Away]:
    """Best of n by the proxy, exactly: the answer of rank i (of K) comes with chance `(i/K)^n - ((i-1)/K)^n`."""
    order = proxy.argsort()
    found = []
    for n in sizes:
        steps = (torch.arange(ANSWERS + 1, dtype=torch.float64) / ANSWERS) ** n
        chance = torch.zeros(ANSWERS, dtype=torch.float64).scatter(0, order, steps.diff())
        found.append(_away(chance.clamp_min(1e-300).log(), proxy, gold))
    return found


def _away(logp: Tensor, proxy: Tensor, gold: Tensor) -> Away:
    p = logp.exp()
    return Away((p * (logp + np.log(ANSWERS))).sum().item(), (p @ proxy).item(), (p @ gold).item())


def best_of_n_within_its_bound() -> float:
    """By how much the KL of best-of-n exceeds `log n - (n - 1)/n`: nowhere (Beirami et al. 2024, arXiv:2401.01879)."""
    sizes = (1, 2, 4, 8, 16, 64, 256)
    found = best_of(*rewards(heavy=False), sizes)
    return max(0.0, *(point.kl - kl_bound(n) for point, n in zip(found, sizes, strict=True)))


def falls_back(tail: str) -> float:
    """Gold at its best on the way to `KL = 4`, less gold there: 0 where it never falls."""
    path = [p for p in tilted(*rewards(heavy=tail == "heavy"), np.geomspace(0.05, 20, 80).tolist()) if p.kl <= FARTHEST]
    return max(p.gold for p in path) - path[-1].gold
