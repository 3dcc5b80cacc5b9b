"""What the steps of an answer come to, from the probability of each that it is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Steps = Sequence[float]


def least(steps: Steps) -> float:
    """`min_k p_k`: an answer is as right as its weakest step (Lightman et al. 2023, arXiv:2305.20050, appendix)."""
    return min(steps)


def product(steps: Steps) -> float:
    """`prod_k p_k`: the probability that all steps are right, were they independent (Lightman et al. 2023)."""
    return math.prod(steps)


def last(steps: Steps) -> float:
    """`p_K`: the last step's, which has all others before it."""
    return steps[-1]


def mean(steps: Steps) -> float:
    """`mean_k p_k`."""
    return sum(steps) / len(steps)


def differences(steps: Steps) -> list[float]:
    """`p_k - p_{k-1}`, p_0 = 0: what each step adds; their sum is `last`. A dense reward that cannot be earned by more steps.

    >>> differences([0.5, 0.75, 0.25])
    [0.5, 0.25, -0.5]
    """
    return [p - before for before, p in zip([0.0, *steps], steps, strict=False)]


AGGREGATES: Mapping[str, Callable[[Steps], float]] = {
    "min": least, "product": product, "last": last, "mean": mean, "differences": last,
}  # fmt: skip
"""By the name that an experiment file may hold; `differences` is `last`, earned step by step."""
