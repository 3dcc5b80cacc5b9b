"""How far people agree with each other, with themselves, and with whoever judged the same answers before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evenhand.judges.agreement import coefficients
from evenhand.judges.label_log import Label
from evenhand.labelling.items import Item


def agreement(items: Sequence[Item], labels: Sequence[Label], others: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Coefficients over every two answers of every item, by the side that each person prefers; and each person's own consistency.

    `others` has, by name, scores of every item's answers by a judge or a file (NaN where there are none). Consistency is the
    share of pairs that were shown twice, the second time the other way round, on which the person said the same; ties are a side
    of their own.
    """
    people = list(dict.fromkeys(label.annotator for label in labels))
    firsts, seconds = _first_and_second(labels)
    ratings = {who: [s for i in items for s in _sides_of(i, firsts.get((who, i.name)))] for who in people}
    ratings |= {
        name: [s for i, own in zip(items, scores, strict=True) for s in _between(i, own)] for name, scores in others.items()
    }
    own = {who: _consistency(items, who, firsts, seconds) for who in people}
    found = coefficients(ratings) if len(ratings) > 1 else {}
    return {"people": [{"name": who, "labels": sum(x.annotator == who for x in labels), **own[who]} for who in people], **found}


_ByPerson = dict[tuple[str, str], Label]


def _first_and_second(labels: Sequence[Label]) -> tuple[_ByPerson, _ByPerson]:
    first: _ByPerson = {}
    second: _ByPerson = {}
    for label in labels:
        if label.scores:
            into = second if (label.annotator, label.item) in first else first
            into.setdefault((label.annotator, label.item), label)
    return first, second


def _sides_of(one: Item, label: Label | None) -> list[float]:
    scores = label.by_answer() if label is not None else {}
    return _between(one, [scores.get(a, math.nan) for a in one.answers])


def _between(one: Item, scores: Sequence[float]) -> list[float]:
    """1, 0 or -1 for every two answers; NaN where one has no score."""
    return [float(np.sign(scores[i] - scores[j])) for i, j in one.pairs]


def _consistency(items: Sequence[Item], who: str, first: _ByPerson, second: _ByPerson) -> dict[str, Any]:
    same: list[bool] = []
    for one in items:
        if (again := second.get((who, one.name))) is not None:
            same += [a == b for a, b in zip(_sides_of(one, first[who, one.name]), _sides_of(one, again), strict=True)]
    return {"twice": len(same), "consistency": sum(same) / len(same) if same else None}
