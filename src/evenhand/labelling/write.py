"""Labels as data: groups that `preferences:` reads, and rows by annotator that `evenhand judge` compares a judge with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evenhand.data.jsonl import write_groups, write_rows
from evenhand.judges.human import HumanJudge
from evenhand.judges.label_log import Label
from evenhand.labelling.items import Form, Item
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
