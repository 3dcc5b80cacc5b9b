"""From a model's reply to a number: by its words, or by the probabilities of the words it could have said."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from evenhand.errors import UserError
from evenhand.judges.chat import Reply
from evenhand.judges.template import Template

Form = Literal["text", "logprobs"]


@dataclass(frozen=True, slots=True)
class Reading:
    """`value` of a label; with log-probs its mean under the model, and the probability `mass` of all labels together."""

    label: str
    value: float
    mass: float = math.nan


def read(template: Template, reply: Reply, form: Form) -> Reading | None:
    """What a reply says, or None when that cannot be known: cut off before a verdict, refused, or not in the asked form."""
    if reply.finish == "content_filter":
        return None
    if form == "logprobs":
        return _from_logprobs(template, reply)
    found = template.read(reply.text)
    return Reading(*found) if found is not None else None


def variants(template: Template) -> dict[str, str]:
    """Token text -> label, for a template whose labels are single tokens."""
    if not template.variants:
        raise UserError(
            f"template '{template.name}' does not say which tokens spell its labels",
            where="judge.verdict",
            fix="use `verdict: text`, or add `variants: {A: [...], B: [...]}` to the template",
        )
    return {text: label for label, texts in template.variants.items() for text in texts}


def _from_logprobs(template: Template, reply: Reply) -> Reading | None:
    """value = sum over labels of p(label) value(label), p normalised over the labels' spellings at the verdict's token."""
    if not reply.tokens:
        if not reply.text:
            return None
        raise UserError(
            "the server sent no log-probs", where="judge.verdict", why="verdicts of two kinds must not be mixed",
            fix="use `verdict: text`, or a server that gives `logprobs` with `top_logprobs`",
        )  # fmt: skip
    spelt, place = variants(template), _verdict_token(template, reply)
    if place is None:
        return None
    mass = dict.fromkeys(template.labels, 0.0)
    for token, logp in reply.tokens[place][1].items():
        label = spelt.get(token)
        if label is not None:
            mass[label] += math.exp(logp)
    total = sum(mass.values())
    if total == 0.0:
        return None
    best = max(mass, key=lambda label: mass[label])
    return Reading(best, sum(p * template.labels[label] for label, p in mass.items()) / total, total)


def _verdict_token(template: Template, reply: Reply) -> int | None:
    """The token at which the label begins: where the template's patterns find it, or the only token there is."""
    if len(reply.tokens) == 1:
        return 0
    text = "".join(token for token, _ in reply.tokens)
    for pattern in template.patterns:
        matches = list(re.finditer(pattern, text))
        if matches:
            return _token_at([len(token) for token, _ in reply.tokens], matches[-1].start(1))
    return None


def _token_at(lengths: list[int], character: int) -> int | None:
    end = 0
    for index, length in enumerate(lengths):
        end += length
        if character < end:
            return index
    return None


def spellings(template: Template, form: Form) -> tuple[str, ...]:
    """The token texts to ask about; none for verdicts from words."""
    return tuple(variants(template)) if form == "logprobs" else ()
