"""What is looked for in the rows of a source, whatever their format: it takes several rows, or a whole group, to see it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.data.formats import Format, Kind
from evenhand.data.rows import BadRow, Row, RowReading
from evenhand.data.values import look
from evenhand.errors import UserError
from evenhand.types import Group, Message

_BAD = {"-1": "-1", "-1.0": "-1", "0": "0", "0.0": "0", "false": "0"}


class Watch:
    """Sees each row of a source with the groups made of it, and says at the end what was noteworthy."""

    def __init__(self, form: Format, reading: RowReading, label: str) -> None:
        self._form, self._reading, self._label = form, reading, label
        self._bad_labels: dict[str, str] = {}
        self._first, self._count = "", 0

    def see(self, place: str, data: Mapping[str, Any], groups: Sequence[Group]) -> None:
        """Raises UserError where two rows contradict each other: -1 says bad, and so does 0, if it does not say neither."""
        if self._form.kind is Kind.BINARY:
            self._see_label(place, data)
        if any(neighbours(g) for g in groups):
            self._first, self._count = self._first or place, self._count + 1

    def _see_label(self, place: str, data: Mapping[str, Any]) -> None:
        name = self._form.fields[-1]
        column = self._reading.columns.get(name, name)
        word = _BAD.get(str(look(data, column)).strip().lower()[:10])
        if word is None or self._bad_labels.setdefault(word, place) != place or len(self._bad_labels) < 2:
            return
        raise UserError(
            f"labels are -1 ({self._bad_labels['-1']}) as well as 0 ({self._bad_labels['0']})",
            where=f"{self._label}, field '{column}'",
            why="0 then stands between good and bad, or is bad itself: it cannot be known",
            fix="leave one of them out: steps: [{keep: {column: " + column + ", is_not: 0}}]",
        )

    def said(self) -> list[str]:
        """Phrases for the line that describes a source."""
        if not self._count:
            return []
        rows = "1 row has" if self._count == 1 else f"{self._count} rows have"
        return [
            f"{rows} neighbouring turns of one role (first: {self._first}), kept as they are; "
            "clean: {turns: merge} would join them, {turns: drop} leave them out"
        ]


def neighbours(group: Group) -> bool:
    """Whether a role, other than the tools', speaks twice in a row; an answer that continues a begun turn does not."""
    prompt = () if isinstance(group.prompt.content, str) else group.prompt.content
    for completion in group.completions or (None,):
        said = () if completion is None or isinstance(completion.content, str) else completion.content
        roles = [m.role for m in (prompt[:-1] if prompt and prompt[-1].prefill and said else prompt)] + [m.role for m in said]
        if any(a == b != "tool" for a, b in itertools.pairwise(roles)):
            return True
    return False


def refuse_repeated_prompts(form: Format, rows: Sequence[tuple[str, Any]], reading: RowReading, where: str) -> None:
    """Raises UserError when every answer of the first rows begins with its prompt: the model would learn to repeat it."""
    if form.kind in (Kind.GROUPS, Kind.PROMPTS):
        return
    groups: list[Group] = []
    for place, data in rows:
        try:
            groups += [] if isinstance(data, BadRow) else form.groups(Row(data, place, reading))
        except BadRow:
            continue
    groups = [g for g in groups if g.completions]
    if len(groups) < 2 or not all(_repeats(g) for g in groups):
        return
    pairs = form.kind is Kind.PAIRS
    column = next((reading.columns.get(f, f) for f in form.fields if f not in ("chosen", "rejected")), "prompt")
    answers = [reading.columns.get(f, f) for f in form.fields[1:] if f not in ("label", "kto_tag", "scores", "ratings", "ranks")]
    steps = ", ".join(f"{{remove_prefix: {{column: {answer}, prefix: {column}}}}}" for answer in answers)
    raise UserError(
        f"{'chosen and rejected' if pairs else 'the answers'} begin with the prompt in every row",
        where=where,
        why="the prompt would be learned as part of each answer",
        fix=f"take it off: steps: [{steps}]" + ("; or format: chosen/rejected takes the shared prefix as the prompt" * pairs),
    )


def _repeats(group: Group) -> bool:
    content = group.prompt.content
    asked = (content if isinstance(content, str) else content[-1].content if content else "").strip()
    return bool(asked) and all(_words(c.content).startswith(asked) for c in group.completions)


def _words(content: str | tuple[Message, ...]) -> str:
    return (content if isinstance(content, str) else content[0].content).strip()
