"""What people said of answers: an append-only file of JSON lines, one per click, each on the disk before the next is asked.

A line is a label, or takes one back (`undo`): nothing is ever rewritten, so that a kill can spoil at most the last line. Answers
are named by their texts, so that a label holds wherever the same question and the same answers are compared.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.judges.append import append
from evenhand.types import Prompt, content_id

_log = logging.getLogger(__name__)
SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What `annotator` said of `item`: `scores` of its `answers`, in the order in which they were shown; none if it was skipped.

    `label` is the word: first, second, tie, both_bad, ranking, rating or skip. `seconds`: how long it was looked at. `number`
    counts the lines of its file.
    """

    number: int
    annotator: str
    item: str
    answers: tuple[str, ...]
    scores: tuple[float, ...]
    label: str
    reason: str = ""
    seconds: float = 0.0

    def by_answer(self) -> dict[str, float]:
        """Score by the answer's name; empty where it was skipped."""
        return dict(zip(self.answers, self.scores, strict=True)) if self.scores else {}


def answer_name(text: str) -> str:
    """16 hex digits for an answer's text."""
    return _digest(text)


def item_name(prompt: Prompt, texts: Sequence[str]) -> str:
    """16 hex digits for a question with its answers, in whatever order these stand."""
    return _digest(json.dumps([content_id(prompt.content, prompt.options), sorted(answer_name(t) for t in texts)]))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class LabelLog:
    """The labels of a file, and those that are added to it. One process writes at a time; see `evenhand.store.locks`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._labels: dict[int, Label] = {}
        self._lines = 0
        for row in _rows(path) if path.exists() else ():
            self._take(row)

    @property
    def labels(self) -> list[Label]:
        """Those that hold, oldest first."""
        return list(self._labels.values())

    def add(
        self, *, annotator: str, item: str, answers: Sequence[str], scores: Sequence[float], label: str, reason: str = "",
        seconds: float = 0.0,
    ) -> Label:  # fmt: skip
        """Keeps a label; it is on the disk when this returns."""
        row = {"item": item, "answers": list(answers), "scores": list(scores), "label": label}
        more = ({"reason": reason} if reason else {}) | {"seconds": round(seconds, 4)}
        return self._labels[self._write({"annotator": annotator, **row, **more})]

    def undo(self, annotator: str) -> Label | None:
        """Takes back the last label of `annotator` that holds; None where there is none."""
        last = next((label for label in reversed(self.labels) if label.annotator == annotator), None)
        if last is not None:
            self._write({"annotator": annotator, "undo": last.number})
        return last

    def _write(self, row: dict[str, Any]) -> int:
        row = {"number": self._lines, "at": datetime.now(UTC).isoformat(timespec="seconds"), **row}
        append(self.path, json.dumps(row).encode(), sync=True)
        self._take(row)
        return int(row["number"])

    def _take(self, row: dict[str, Any]) -> None:
        self._lines = max(self._lines, int(row["number"]) + 1)
        if "undo" in row:
            self._labels.pop(row["undo"], None)
            return
        self._labels[row["number"]] = _label(row)


def _label(row: dict[str, Any]) -> Label:
    return Label(
        number=row["number"], annotator=row["annotator"], item=row["item"], answers=tuple(row["answers"]),
        scores=tuple(float(x) for x in row["scores"]), label=row["label"], reason=row.get("reason", ""),
        seconds=float(row.get("seconds", 0.0)),
    )  # fmt: skip


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file. A line that a kill cut short is left out with a word; any other that cannot be read is an error."""
    if not path.is_file():
        raise UserError("is not a file", where=str(path), fix="name another file for the labels")
    data = path.read_bytes()
    lines = data.split(b"\n")
    torn = len(lines) - 1 if lines[-1] else None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _checked(json.loads(line))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            if number - 1 == torn or (number < len(lines) and _half(line)):
                _log.warning("%s:%d: a line that was cut short; what it answered is asked again", path, number)
                continue
            fix = "restore the file, or take this line out"
            raise UserError(f"is no label ({error})", where=f"{path}:{number}", fix=fix) from None


def _half(line: bytes) -> bool:
    """Whether a line was begun and never ended: a kill cut it, and a later start went on below."""
    return line.startswith(b"{") and not line.rstrip().endswith(b"}")


def _checked(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict) or not isinstance(row["number"], int) or not isinstance(row["annotator"], str):
        raise TypeError("a label has a number and an annotator")
    if "undo" in row:
        if not isinstance(row["undo"], int):
            raise TypeError("what is taken back has a number")
        return row
    answers, scores = row["answers"], row["scores"]
    if not isinstance(row["item"], str) or not all(isinstance(a, str) for a in answers) or len(scores) not in (0, len(answers)):
        raise TypeError("a label names an item, its answers and a score for each, or none")
    if not all(isinstance(x, int | float) for x in scores) or not isinstance(row["label"], str):
        raise TypeError("scores are numbers, and a label has a word")
    if not isinstance(_label(row).reason, str):
        raise TypeError("a reason is a text")
    return row
