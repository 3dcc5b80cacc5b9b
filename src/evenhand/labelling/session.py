"""Who is asked what next, and what they said: the state behind the page, all of it read from the file of labels."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from evenhand.errors import UserError
from evenhand.judges.label_log import SKIP, Label, LabelLog
from evenhand.labelling import Form
from evenhand.labelling.items import Item
from evenhand.seeding import keyed, rng

GAP = 8
"""Other answers between the two times that one person is shown an item."""
RATINGS = range(1, 6)
_UNIT = 2.0**63
_PAIR: Mapping[str, tuple[float, ...]] = {"first": (1.0, 0.0), "second": (0.0, 1.0), "tie": (0.5, 0.5), "both_bad": (0.5, 0.5)}
"""What a word says of a pair."""


class Stale(Exception):
    """An answer to what is not asked (any more): another window of the same person was faster."""


@dataclass(frozen=True, slots=True)
class LabellingTask:
    """An item as one person sees it: its answers in the order `shown` (their places in the item)."""

    item: Item
    shown: tuple[int, ...]

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(self.item.answers[i] for i in self.shown)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one person is: labels given, items left for them, and the median seconds of one."""

    done: int
    left: int
    seconds: float | None


class LabellingSession:
    """Hands out `items`, keeps what is said of them in `log`. Several people may work at once.

    `people`: how many of them label each item; 0: everyone labels everything. `again`: the share of items that a person is shown
    a second time, the other way round, after `GAP` others. Order of items and of answers is random, by `seed` and the person's
    name.
    """

    def __init__(
        self, items: Sequence[Item], log: LabelLog, *, form: Form = Form.pair, people: int = 1, again: float = 0.1, seed: int = 0
    ) -> None:
        self.items = {i.name: i for i in items}
        self.log, self.form, self.people, self.again, self.seed = log, form, people, again, seed
        self._open: dict[str, str] = {}
        self._lock = threading.RLock()
        self._check_forms()

    def _check_forms(self) -> None:
        """Labels of two forms in one file would be mixed up."""
        for label in self.log.labels:
            if label.item in self.items and label.label != SKIP and form_of(label) is not self.form:
                raise UserError(
                    f"holds {form_of(label)} labels of these answers", where=str(self.log.path),
                    fix=f"go on with --form {form_of(label)}, or name another file with --log",
                )  # fmt: skip

    def next(self, annotator: str) -> LabellingTask | None:
        """What this person is shown; the same until it is answered. None when there is nothing left for them."""
        with self._lock:
            task = self._due(annotator)
            if task is None:
                self._open.pop(annotator, None)
            else:
                self._open[annotator] = task.item.name
            return task

    def answer(
        self, annotator: str, item: str, answers: Sequence[str], word: str, values: Sequence[int] = (), *, reason: str = "",
        seconds: float = 0.0,
    ) -> Label:  # fmt: skip
        """Keeps what was said of the answers as they were shown. Raises: Stale, ValueError."""
        with self._lock:
            task = self._due(annotator)
            if task is None or task.item.name != item or task.answers != tuple(answers):
                raise Stale
            scores = scored(self.form, len(answers), word, values)
            self._open.pop(annotator, None)
            return self.log.add(
                annotator=annotator, item=item, answers=answers, scores=scores, label=word, reason=reason, seconds=seconds
            )

    def undo(self, annotator: str) -> Label | None:
        """Takes back the person's last answer, which is then asked again."""
        with self._lock:
            label = self.log.undo(annotator)
            if label is not None:
                self._open[annotator] = label.item
            return label

    def standing(self, annotator: str) -> Standing:
        with self._lock:
            own = self._of(annotator)
            left = len(self._new(annotator, own)) + len(self._second(annotator, own))
            times = [label.seconds for label in own if label.seconds > 0]
            return Standing(len(own), left, median(times) if times else None)

    def labels(self) -> list[Label]:
        """Those that hold, of these items."""
        with self._lock:
            return [label for label in self.log.labels if label.item in self.items]

    def _of(self, annotator: str) -> list[Label]:
        return [label for label in self.labels() if label.annotator == annotator]

    def _due(self, annotator: str) -> LabellingTask | None:
        own = self._of(annotator)
        held = self._open.get(annotator)
        new, second = self._new(annotator, own), self._second(annotator, own)
        places = {label.item: place for place, label in enumerate(own)}
        ripe = [i for i in second if len(own) - places[i.name] > GAP or not new]
        for one in (i for i in (*ripe, *new) if i.name == held):
            return self._task(one, annotator, own)
        first = next(iter(ripe or new), None)
        return self._task(first, annotator, own) if first is not None else None

    def _new(self, annotator: str, own: Sequence[Label]) -> list[Item]:
        """Items that this person has not seen and that need them, in their own order."""
        seen, others = {label.item for label in own}, self._others(annotator)
        wanted = [
            i for i in self.items.values() if i.name not in seen and not (self.people and others.get(i.name, 0) >= self.people)
        ]
        return sorted(wanted, key=lambda i: keyed(self.seed, "order", annotator, i.name))

    def _others(self, annotator: str) -> dict[str, int]:
        """How many others have labelled an item, or have it before them."""
        pairs = {(label.item, label.annotator) for label in self.labels() if label.scores}
        pairs |= {(name, who) for who, name in self._open.items()}
        found: dict[str, int] = {}
        for name, who in pairs:
            if who != annotator:
                found[name] = found.get(name, 0) + 1
        return found

    def _second(self, annotator: str, own: Sequence[Label]) -> list[Item]:
        """Items that this person is to see once more, oldest first."""
        count: dict[str, int] = {}
        for label in own:
            count[label.item] = count.get(label.item, 0) + (2 if not label.scores else 1)
        drawn = lambda name: keyed(self.seed, "again", annotator, name) / _UNIT < self.again  # noqa: E731
        return [self.items[name] for name, times in count.items() if times == 1 and drawn(name)]

    def _task(self, one: Item, annotator: str, own: Sequence[Label]) -> LabellingTask:
        """The first time in an order by chance, the second time in the other."""
        before = next((label for label in own if label.item == one.name), None)
        if before is not None:
            return LabellingTask(one, tuple(one.answers.index(a) for a in reversed(before.answers)))
        order = rng(self.seed, "side", annotator, one.name).permutation(len(one.answers))
        return LabellingTask(one, tuple(int(i) for i in order))


def form_of(label: Label) -> Form:
    return Form(label.label) if label.label in (Form.ranking, Form.rating) else Form.pair


def scored(form: Form, count: int, word: str, values: Sequence[int]) -> tuple[float, ...]:
    """Scores of the answers as shown: of a pair by a word, of ranks (1 is best) how many stand below, of ratings themselves.

    >>> scored(Form.pair, 2, "second", ()), scored(Form.ranking, 3, "ranking", (2, 1, 2)), scored(Form.rating, 2, "skip", ())
    ((0.0, 1.0), (0.0, 1.0, 0.0), ())
    """
    if word == SKIP:
        return ()
    if form is Form.pair and word in _PAIR:
        return _PAIR[word]
    if form is Form.pair or word != form or len(values) != count:
        raise ValueError(f"'{word}' with {len(values)} values says nothing of {count} answers")
    if form is Form.rating:
        if not set(values) <= set(RATINGS):
            raise ValueError(f"ratings go from {RATINGS[0]} to {RATINGS[-1]}")
        return tuple(float(v) for v in values)
    if min(values) < 1 or max(values) > count:
        raise ValueError(f"ranks go from 1 to {count}")
    return tuple(float(max(values) - v) for v in values)


def means(labels: Sequence[Label], one: Item) -> tuple[float, ...]:
    """The mean score of each answer over people, each of whom counts once however often they were asked; NaN without labels."""
    by: dict[str, list[dict[str, float]]] = {}
    for label in labels:
        if label.item == one.name and label.scores:
            by.setdefault(label.annotator, []).append(label.by_answer())
    each = [{a: sum(said[a] for said in own) / len(own) for a in one.answers} for own in by.values()]
    return tuple(sum(e[a] for e in each) / len(each) if each else math.nan for a in one.answers)
