"""The formats people already have: a name, the columns it must have, the kind of groups it gives, and its parser.

`detect.py` finds the one that a file is in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any

from evenhand.data import parsers
from evenhand.data.columns import COLUMNS, with_columns
from evenhand.data.convert import MARGIN
from evenhand.data.rows import Row
from evenhand.registry import Registry
from evenhand.types import Group

Parse = Callable[..., list[Group]]


class Kind(StrEnum):
    """What a dataset's groups are."""

    PROMPTS = "prompts"
    DEMONSTRATIONS = "demonstrations"
    BINARY = "binary feedback"
    PAIRS = "preference pairs"
    RANKINGS = "rankings"
    GROUPS = "groups"


WEIGHT = {Kind.PROMPTS: 0, Kind.DEMONSTRATIONS: 1, Kind.BINARY: 2, Kind.PAIRS: 3, Kind.RANKINGS: 3, Kind.GROUPS: 4}
"""Of two formats whose columns are there, the one that says more about the answers wins."""


@dataclass(frozen=True, slots=True)
class Format:
    """`fields` must be there; `optional` are used when they are; `fits` looks at values where columns do not decide."""

    name: str
    kind: Kind
    fields: tuple[str, ...]
    parse: Callable[..., list[Group]]
    note: str
    optional: tuple[str, ...] = ()
    fits: Callable[[Mapping[str, Any]], bool] = lambda row: True

    def groups(self, row: Row) -> list[Group]:
        """The groups of one row; raises BadRow."""
        made = self.parse(row, meta=row.meta((*self.fields, *self.optional)))
        return made if self.kind is Kind.GROUPS else with_columns(row, made)


# what values decide -----------------------------------------------------------------------------------------------------


def _last_role(name: str, row: Mapping[str, Any]) -> str:
    turns = row.get(name)
    last = turns[-1] if isinstance(turns, list | tuple) and turns else {}
    return str(last.get("role", last.get("from", ""))) if isinstance(last, Mapping) else ""


def _ends(name: str, answer: bool) -> Callable[[Mapping[str, Any]], bool]:
    return lambda row: (_last_role(name, row) in ("assistant", "gpt", "bot", "model", "chatgpt")) == answer


def _no_instruction(row: Mapping[str, Any]) -> bool:
    """Beside an instruction, `input` is what it is about, not a question."""
    return "instruction" not in row


def _is_canonical(row: Mapping[str, Any]) -> bool:
    items = row.get("completions")
    return isinstance(items, list) and all(isinstance(c, Mapping) and "content" in c and "role" not in c for c in items)


def _labelled(parse: Callable[..., list[Group]], label: str) -> Callable[..., list[Group]]:
    def parse_with_label(row: Row, *, meta: Mapping[str, Any]) -> list[Group]:
        value = row.label(label)
        return parsers.labelled(parse(row, meta=meta), value)

    return parse_with_label


# the table --------------------------------------------------------------------------------------------------------------

_QUESTIONS = ("question", "query", "problem")
"""Names under which a prompt is a user's question, so that strings become turns of a conversation."""
_ANSWERS = (
    ("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("question", "response"),
    ("problem", "solution"), ("query", "response"), ("input", "output"),
)  # fmt: skip
_EXPLICIT = "prompt explicit"
_BELOW = ("input", "context", "system", "history")
"""Columns that go with an instruction."""
_GRADES = tuple(name for names in parsers.GRADES for name in names)


def _prompt_formats() -> list[Format]:
    table = [Format("prompt", Kind.PROMPTS, ("prompt",), parsers.prompt_only, "no answers")]
    for name in ("question", "query", "problem"):
        parse = partial(parsers.prompt_only, name=name, chat=True)
        table.append(Format(name, Kind.PROMPTS, (name,), parse, "no answers", ("system",)))
    table += [
        Format("instruction", Kind.PROMPTS, ("instruction",), parsers.instruction_prompt, "no answers", _BELOW),
        Format("turns", Kind.PROMPTS, ("turns",), parsers.first_turn, "first question of each"),
    ]
    for name in ("messages", "conversations"):
        parse = partial(parsers.open_conversation, name=name)
        table.append(
            Format(f"open {name}", Kind.PROMPTS, (name,), parse, "waiting for an answer", ("system",), _ends(name, False))
        )
    context = partial(parsers.prompt_only, name="context_messages")
    table.append(Format("context_messages", Kind.PROMPTS, ("context_messages",), context, "waiting for an answer"))
    for name in ("input", "context_messages"):
        parse = partial(parsers.referenced, name=name)
        fields = (name, "label")
        table.append(Format("/".join(fields), Kind.PROMPTS, fields, parse, "with a reference answer", (), _no_instruction))
    return table


def _demonstration_formats() -> list[Format]:
    table = []
    for prompt, answer in _ANSWERS:
        chat = prompt != "prompt"
        parse = partial(parsers.demonstration, prompt_name=prompt, answer_name=answer, chat=chat)
        more = ("system",) if chat else ()
        table.append(Format(f"{prompt}/{answer}", Kind.DEMONSTRATIONS, (prompt, answer), parse, _EXPLICIT, more, _no_instruction))
    code = partial(parsers.demonstration, prompt_name="text", answer_name="code", chat=True)
    below, dolly = "instruction with input below it", partial(parsers.instruction, answer_name="response")
    table += [
        Format("text/code", Kind.DEMONSTRATIONS, ("text", "code"), code, _EXPLICIT),
        Format("alpaca", Kind.DEMONSTRATIONS, ("instruction", "output"), parsers.instruction, below, _BELOW),
        Format("instruction/response", Kind.DEMONSTRATIONS, ("instruction", "response"), dolly, below, _BELOW),
        Format("self-instruct", Kind.DEMONSTRATIONS, ("instruction", "instances"), parsers.instances, "one group per instance"),
        Format("text", Kind.DEMONSTRATIONS, ("text",), parsers.document, "running text, empty prompt"),
    ]  # fmt: skip
    for name in ("messages", "conversations"):
        parse = partial(parsers.conversation, name=name)
        table.append(
            Format(name, Kind.DEMONSTRATIONS, (name,), parse, "last answer is the completion", ("system",), _ends(name, True))
        )
    return table


def _binary_formats(demonstrations: Sequence[Format]) -> list[Format]:
    """Every demonstration with a label beside it."""
    return [
        Format(f"{f.name}/{label}", Kind.BINARY, (*f.fields, label), _labelled(f.parse, label), f.note, f.optional, f.fits)
        for f in demonstrations
        if f.name not in ("text", "self-instruct")
        for label in ("label", "kto_tag")
    ]


HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
"""The columns in which HelpSteer and HelpSteer2 rate an answer."""


def _rated(parse: Callable[..., list[Group]]) -> Callable[..., list[Group]]:
    def parse_with_ratings(row: Row, *, meta: Mapping[str, Any]) -> list[Group]:
        ratings = parsers.ratings_in(row, "ratings", row.get("ratings"))
        return parsers.rated(parse(row, meta=meta), [ratings])

    return parse_with_ratings


def _by_attribute(row: Mapping[str, Any]) -> bool:
    found = row.get("ratings")
    return isinstance(found[0] if isinstance(found, list) and found else found, Mapping)


def _rated_formats(demonstrations: Sequence[Format]) -> list[Format]:
    """Answers with ratings by attribute: in an object, a list of them, or HelpSteer's columns (where `format:` says so)."""
    note, own = "rated by attribute", ("prompt/completion", "prompt/response")
    table = [
        Format(f"{f.name}/ratings", Kind.RANKINGS, (*f.fields, "ratings"), _rated(f.parse), note, f.optional, _by_attribute)
        for f in demonstrations
        if f.name in own
    ]
    fields = ("prompt", "completions", "ratings")
    table.append(Format("/".join(fields), Kind.RANKINGS, fields, parsers.rated_ranking, note, ("scores",), _by_attribute))
    columns = partial(parsers.rated_columns, columns=HELPSTEER)
    table.append(Format("helpsteer", Kind.RANKINGS, ("prompt", "response"), columns, note, HELPSTEER, lambda row: False))
    return table


def _comparison_formats() -> list[Format]:
    both, graded = ("chosen", "rejected"), (*_GRADES, MARGIN)
    table = [
        Format("prompt/chosen/rejected", Kind.PAIRS, ("prompt", *both), parsers.pair, _EXPLICIT, graded),
        Format("chosen/rejected", Kind.PAIRS, both, parsers.pair_implicit, "prompt is the shared prefix", graded),
    ]
    fields = ("instruction", *both)
    table.append(Format("/".join(fields), Kind.PAIRS, fields, parsers.instruction_pair, _EXPLICIT, (*graded, *_BELOW)))
    for name in _QUESTIONS:
        parse = partial(parsers.pair, prompt_name=name, chat=True)
        fields = (name, *both)
        table.append(Format("/".join(fields), Kind.PAIRS, fields, parse, _EXPLICIT, (*graded, "system")))
    for name in ("conversations", "messages"):
        parse = partial(parsers.conversation_pair, name=name)
        fields = (name, *both)
        table.append(
            Format("/".join(fields), Kind.PAIRS, fields, parse, "conversation explicit", (*graded, "system"), _ends(name, False))
        )
    context = partial(parsers.pair, prompt_name="context_messages")
    fields = ("context_messages", *both)
    table.append(Format("/".join(fields), Kind.PAIRS, fields, context, _EXPLICIT, graded))
    fields = ("instruction", "generations", "ratings")
    table.append(
        Format("/".join(fields), Kind.RANKINGS, fields, parsers.instruction_ranking, "rated", _BELOW, lambda r: "chosen" not in r)
    )
    for scores, note in (("scores", "scored"), ("ranks", "ranked, 1 is best")):
        fields = ("prompt", "completions", scores)
        table.append(Format("/".join(fields), Kind.RANKINGS, fields, parsers.ranking, note, (), lambda r: not _by_attribute(r)))
    for name in ("steps", "completions"):
        fields, parse = ("prompt", name, "labels"), partial(parsers.stepwise, steps_name=name)
        table.append(Format("/".join(fields), Kind.BINARY, fields, parse, "each step right or wrong", ("separator",)))
    table += [
        Format("prompt/completions", Kind.RANKINGS, ("prompt", "completions"), parsers.ranking, "unscored", (),
               lambda r: "labels" not in r),
        Format("evenhand", Kind.GROUPS, ("prompt", "id", "meta", "completions", "scores", "parts"), parsers.canonical,
               "written by evenhand", ("options",), _is_canonical),
    ]  # fmt: skip
    return table


def _table() -> dict[str, Format]:
    demonstrations = _demonstration_formats()
    rows = [
        *_comparison_formats(),
        *_rated_formats(demonstrations),
        *_binary_formats(demonstrations),
        *demonstrations,
        *_prompt_formats(),
    ]
    return {f.name: f if f.kind is Kind.GROUPS else replace(f, optional=(*f.optional, *COLUMNS)) for f in rows}


FORMATS = Registry[Format]("data format", named_by=("format",))
"""Every format by name, as `format:` in a data source takes it."""


def data_format(
    name: str, kind: Kind, fields: Sequence[str], note: str = "", *, optional: Sequence[str] = ()
) -> Callable[[Parse], Parse]:
    """Decorator: the function below, (row, *, meta) -> groups, reads rows that have these `fields`; see `Format`."""

    def add(parse: Parse) -> Parse:
        FORMATS.register(name)(Format(name, kind, tuple(fields), parse, note or name, (*optional, *COLUMNS)))
        return parse

    return add


for _format in _table().values():
    FORMATS.register(_format.name)(_format)
