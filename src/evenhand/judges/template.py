"""Judge templates: the words a judge is asked with and the rule its answer is read by. Files, not code."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import regex

from evenhand.configfile.text_file import read_text
from evenhand.errors import UserError, did_you_mean
from evenhand.judges.template_file import fields
from evenhand.types import Message, Prompt

FOLDER = Path(__file__).parent / "templates"
_PLACES = {"pair": ("question", "answer_a", "answer_b", "reference"), "single": ("question", "answer", "reference")}
PATTERN_SECONDS = 0.5
READING = 2
"""The rules by which replies are read: 2 reads finished replies behind their thoughts only."""
_PLACE = re.compile(r"\{(question|answer_a|answer_b|answer|reference)\}")
_BRACED = re.compile(r"\{([A-Za-z_]\w*)\}")
"""What looks like a placeholder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """How a judge is asked and understood.

    `kind` pair: both answers in one message, asked in both orders. `kind` single: each answer by itself gets a number, and
    the higher number wins. `patterns` are regular expressions with one group that finds the label; the first that matches
    is used, at its last match. `labels` gives each label its value: for pairs the probability that the answer shown *first*
    is better, for single answers its grade. Without `labels` the captured text is the number itself. `variants` are the
    tokens that may spell a label, for verdicts from log-probs. `retry` says whether an unreadable answer is asked again.
    `context` names what the reference answer is taken from: the prompt's field `reference`, or the one named here.
    """

    name: str
    kind: Literal["pair", "single"]
    user: str
    patterns: tuple[str, ...]
    system: str = ""
    labels: Mapping[str, float] = field(default_factory=dict)
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scale: tuple[float, float] = (0.0, 1.0)
    max_tokens: int = 160
    reference: str = "reference"
    follows: str = ""

    @property
    def sha(self) -> str:
        """16 hex digits of everything that can change a verdict."""
        parts = [
            self.kind, self.system, self.user, self.patterns, dict(self.labels),
            {k: list(v) for k, v in self.variants.items()}, self.scale, self.max_tokens, self.reference, READING,
        ]  # fmt: skip
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def needs_reference(self) -> bool:
        return "{reference}" in self.user + self.system

    def messages(self, prompt: Prompt, **answers: str) -> tuple[Message, ...]:
        """The messages to send. Answers are put in by one pass over the template: braces inside an answer stay as they are."""
        values = {"question": conversation(prompt), **answers}
        if self.needs_reference:
            values["reference"] = self._reference(prompt)
        fill = lambda text: _PLACE.sub(lambda m: values[m.group(1)], text)  # noqa: E731
        user = Message("user", fill(self.user).strip())
        return (Message("system", fill(self.system).strip()), user) if self.system else (user,)

    def _reference(self, prompt: Prompt) -> str:
        value = prompt.meta.get(self.reference)
        if not isinstance(value, str) or not value.strip():
            raise UserError(
                f"the prompt has no text in '{self.reference}'",
                where=f"judge template {self.name}, prompt {prompt.id}",
                why="this template compares with a reference answer",
                fix="add the column to the prompts, or use a template without a reference",
            )
        return value

    def read(self, text: str) -> tuple[str, float] | None:
        """(label, value) of a judge's answer, or None when it cannot be read.

        >>> get("helpfulness").read("Comparison: both are fine.\\nPreferred: B")
        ('B', 0.0)
        >>> get("helpfulness").read("I cannot compare these.")
        """
        found = self._last_match(text)
        return None if found is None else self._value(found.group(1) or "")

    def label_at(self, text: str) -> int | None:
        """The character at which the label begins, or None."""
        found = self._last_match(text)
        return None if found is None else found.start(1)

    def _last_match(self, text: str) -> Any:
        """The last match of the first pattern that matches. UserError when a pattern takes too long: some never end."""
        end = time.monotonic() + PATTERN_SECONDS
        for pattern in self.patterns:
            try:
                left = max(end - time.monotonic(), 0.01)
                found = deque(regex.finditer(pattern, text, timeout=left), maxlen=1)
            except TimeoutError:
                raise UserError(
                    f"pattern {pattern!r:.80} takes too long on an answer of {len(text)} characters",
                    where=f"judge template {self.name}",
                    fix="write it without repetitions inside of repetitions",
                ) from None
            if found:
                return found[0]
        return None

    def _value(self, said: str) -> tuple[str, float] | None:
        if self.labels:
            by_case = {k.lower(): k for k in self.labels}
            label = by_case.get(said.strip().lower()) if said not in self.labels else said
            return (label, float(self.labels[label])) if label is not None else None
        try:
            value = float(said)
        except ValueError:  # the pattern found something that is no number
            return None
        return (said, value) if self.scale[0] <= value <= self.scale[1] else None


def conversation(prompt: Prompt) -> str:
    """A prompt as a judge reads it: one user turn as its text, several turns with their speakers named."""
    if isinstance(prompt.content, str):
        return prompt.content
    turns = prompt.content
    if len(turns) == 1:
        return turns[0].content
    names = {"user": "User", "assistant": "Assistant", "system": "System"}
    return "\n\n".join(f"{names.get(m.role, m.role)}: {m.text}" for m in turns)


def builtin() -> list[str]:
    """Names of the templates that come with evenhand."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


def get(name: str, *, where: str = "judge.template") -> Template:
    """A built-in template by name, or one from a YAML file by path."""
    if name in builtin():
        return parse((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), where=f"template {name}")
    path = Path(name[:4096])
    try:
        path = path.expanduser()
        there = path.exists()
    except (OSError, RuntimeError):  # a name that no file can have, or no home folder
        there = False
    if not there:
        fix = f"{did_you_mean(name, builtin())} Or give the path of a YAML file"
        raise UserError(f"no template '{name:.200}'", where=where, fix=fix)
    return parse(read_text(path), where=name)


def parse(text: str, *, where: str) -> Template:
    """A template from YAML text, checked: known keys, their types, patterns that compile, the places its kind needs, labels
    with values."""
    return _checked(Template(**fields(text, where=where)), where)


def _checked(template: Template, where: str) -> Template:
    if template.kind not in _PLACES:
        raise UserError(f"unknown kind '{template.kind}'", where=where, fix="pair or single")
    for pattern in template.patterns:
        try:
            groups = regex.compile(pattern).groups
        except (regex.error, RecursionError, OverflowError, ValueError) as error:
            raise UserError(f"pattern {pattern!r:.80} is no regular expression: {error}", where=where) from None
        if groups != 1:
            raise UserError(f"pattern {pattern!r:.80} has {groups} groups", where=where, fix="one group, around the label")
    allowed, needed = _PLACES[template.kind], [p for p in _PLACES[template.kind] if p != "reference"]
    used = set(_PLACE.findall(template.user + template.system))
    if missing := [p for p in needed if p not in used]:
        others = sorted(set(_BRACED.findall(template.user + template.system)) - set(allowed))
        why = f"{{{others[0]}}} is no placeholder and would be sent as it is" if others else "the judge would never see it"
        what = f"the text has no place for {{{missing[0]}}}"
        raise UserError(what, where=where, why=why, fix=f"write {{{missing[0]}}} where it belongs")
    if wrong := used - set(allowed):
        raise UserError(f"a {template.kind} template knows no {{{min(wrong)}}}", where=where, fix=f"known: {', '.join(allowed)}")
    if template.kind == "pair" and not template.labels:
        raise UserError("a pair template needs `labels`", where=where, fix="e.g. `labels: {A: 1, B: 0}`")
    if template.kind == "pair" and (odd := [k for k, v in template.labels.items() if not 0 <= v <= 1]):
        fix = "1 where the answer shown first is better, 0 where the other is, 0.5 for a tie"
        raise UserError(f"label '{odd[0]}' has the value {template.labels[odd[0]]:g}", where=where, fix=fix)
    spelt = [text for texts in template.variants.values() for text in texts]
    if len(set(spelt)) < len(spelt):
        raise UserError("one token spells two labels", where=where, fix="give each spelling under `variants` once")
    if unknown := set(template.variants) - set(template.labels):
        raise UserError(
            f"variants of an unknown label '{min(unknown)}'", where=where, fix=f"labels: {', '.join(template.labels)}"
        )
    return template
