"""From a model's reply to a number: by its words, or by the probabilities of the words it could have said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from evenhand.errors import UserError
from evenhand.judges.chat import ChatReply
from evenhand.judges.template import Template
from evenhand.judges.thoughts import speech_start

Form = Literal["text", "logprobs"]


@dataclass(frozen=True, slots=True)
class Reading:
    """`value` of a label; with log-probs its mean under the model, and the probability `mass` of all labels together."""

    label: str
    value: float
    mass: float = math.nan


@dataclass(frozen=True, slots=True)
class Unread:
    """Why a reply holds no verdict, in words that many replies share."""

    why: str


FINISHED = ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed")
"""What servers call an answer that came to its end."""


def read(template: Template, reply: ChatReply, form: Form) -> Reading | Unread:
    """What a finished reply says behind its thoughts, or why that cannot be known."""
    if not reply.usable:
        return Unread(reply.note or "no answer")
    if reply.finish == "content_filter":
        return Unread("refused by the server's content filter")
    if form == "logprobs":
        return _from_logprobs(template, reply)
    cut = _cut(template, reply)
    if cut is not None:
        return cut
    start = speech_start(reply.text)
    if start is None:
        return Unread("its thoughts do not end")
    found = template.read(reply.text[start:])
    return Reading(*found) if found is not None else Unread("no verdict in its words")


def _cut(template: Template, reply: ChatReply) -> Unread | None:
    """Whether the reply broke off. Where the template asks for one token, that token is the whole reply."""
    if reply.finish.lower() in FINISHED or (template.max_tokens == 1 and reply.finish == "length"):
        return None
    if reply.finish in ("length", "max_tokens"):
        return Unread("cut off by the limit of tokens (raise `max_tokens`)")
    return Unread(f"not finished: finish_reason is '{reply.finish:.40}'")


def variants(template: Template) -> dict[str, str]:
    """Token text -> label, for a template whose labels are single tokens."""
    if not template.variants:
        raise UserError(
            f"template '{template.name}' does not say which tokens spell its labels",
            where="judge.verdict",
            fix="use `verdict: text`, or add `variants: {A: [...], B: [...]}` to the template",
        )
    return {text: label for label, texts in template.variants.items() for text in texts}


def _from_logprobs(template: Template, reply: ChatReply) -> Reading | Unread:
    """value = sum over labels of p(label) value(label), p normalised over the labels' spellings at the verdict's token."""
    if not reply.tokens:
        return Unread("the server sent no log-probs (use `verdict: text`, or a server that gives `top_logprobs`)")
    if len(reply.tokens) > 1 and (cut := _cut(template, reply)) is not None:
        return cut
    spelt, place = variants(template), _verdict_token(template, reply)
    if place is None:
        return Unread("no verdict in its words")
    mass = dict.fromkeys(template.labels, 0.0)
    for token, logp in reply.tokens[place][1].items():
        label = spelt.get(token)
        if label is not None:
            mass[label] += math.exp(min(logp, 0.0))
    total = sum(mass.values())
    if total == 0.0:
        return Unread("none of the verdict's words is among the likeliest tokens")
    best = max(mass, key=lambda label: mass[label])
    value = sum(p * template.labels[label] for label, p in mass.items()) / total
    return Reading(best, value, min(total, 1.0))


def _verdict_token(template: Template, reply: ChatReply) -> int | None:
    """The token at which the label begins: where the template's patterns find it behind all thoughts, or the only token."""
    text = "".join(token for token, _ in reply.tokens)
    start = speech_start(text)
    if start is None:
        return None
    if len(reply.tokens) == 1:
        return 0
    at = template.label_at(text[start:])
    return None if at is None else _token_at([len(token) for token, _ in reply.tokens], start + at)


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
