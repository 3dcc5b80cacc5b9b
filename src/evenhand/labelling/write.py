"""Labels as data: groups that `preferences:` reads, rows by annotator, and how far people agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.data.jsonl import write_groups, write_rows
from evenhand.judges.agreement import coefficients
from evenhand.judges.human import HumanJudge
from evenhand.judges.label_log import Label
from evenhand.labelling import Form
from evenhand.labelling.items import Item
from evenhand.labelling.session import means
from evenhand.synthesis import AnnotatedPairs
from evenhand.synthesis import label as labelled_by
from evenhand.synthesis.annotation import Labels


def preferences(
    items: Sequence[Item], log: Path, form: Form, labels: Sequence[Label], kind: Labels, margin: float
) -> AnnotatedPairs:
    """The labelled items: pairs as any judge's labels become pairs; rankings and ratings as groups with each answer's mean score.

    Left out are pairs that nobody has labelled and ties; rankings and ratings in which all answers are equal.
    """
    said = {label.item for label in labels if label.scores}
    known = [i for i in items if i.name in said]
    if form is Form.pair:
        judge = HumanJudge(log, annotators=0)
        made = labelled_by([i.group for i in known], judge, choose="all", labels=kind, margin=margin)
    else:
        found = [replace(i.group, scores=means(labels, i)) for i in known]
        kept = tuple(g for g in found if max(g.scores) - min(g.scores) > margin)
        made = AnnotatedPairs(pairs=kept, left_out={"tied": len(found) - len(kept)})
    left = {"not labelled": len(items) - len(known), **made.left_out}
    return replace(made, left_out={k: n for k, n in left.items() if n})


def rows_by_annotator(items: Sequence[Item], labels: Sequence[Label]) -> Iterator[dict[str, Any]]:
    """One row per person and two answers, of each person's first label: a form that `evenhand judge` reads."""
    known = {i.name: i for i in items}
    seen: set[tuple[str, str]] = set()
    for label in labels:
        if not label.scores or (label.annotator, label.item) in seen:
            continue
        seen.add((label.annotator, label.item))
        one, score = known[label.item], label.by_answer()
        texts = [c.text for c in one.group.completions]
        for i, j in one.pairs:
            a, b = score[one.answers[i]], score[one.answers[j]]
            said = "tie" if a == b else "A" if a > b else "B"
            yield {
                "prompt": one.group.prompt.text, "response_a": texts[i], "response_b": texts[j], "label": said,
                "annotator": label.annotator, **({"reason": label.reason} if label.reason else {}),
            }  # fmt: skip


def write(out: Path, found: AnnotatedPairs, items: Sequence[Item], labels: Sequence[Label]) -> Path:
    """`out`, and beside it the rows by annotator; returns the second path."""
    beside = out.with_name(f"{out.name.removesuffix('.jsonl')}.annotators.jsonl")
    write_groups(out, found.pairs)
    write_rows(beside, rows_by_annotator(items, labels))
    return beside


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
