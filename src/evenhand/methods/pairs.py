"""How an offline method of pairs is written down: a named loss and its hyper-parameters, with a term beside it or without."""

from __future__ import annotations

from evenhand.objectives import Combined, Likelihood, Pairwise
from evenhand.protocols import Objective
from evenhand.train.method import PREFERENCES, Method


def pairs(loss: str, *, reference: str = "start", rate: float = 5e-7, **parameters: float) -> Method:
    """The pair loss of that name on fixed pairs."""
    return of_pairs(Pairwise(loss=loss, parameters=parameters), reference=reference, rate=rate)


def of_pairs(objective: Objective, *, reference: str = "start", rate: float = 5e-7) -> Method:
    """Any objective of pairs on fixed pairs."""
    return Method(objective=objective, data=PREFERENCES, reference=reference, learning_rate=rate)


def with_likelihood(pair: Objective, likelihood: float, *, reduce: str = "token_mean") -> Combined:
    """A loss of pairs plus `likelihood` times the NLL of the chosen answers."""
    nll = Likelihood(on="chosen", reduce=reduce)
    return Combined(objectives=(pair, nll), coefficients=(1.0, likelihood))
