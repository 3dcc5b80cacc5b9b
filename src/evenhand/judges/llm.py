"""Judging by a language model: every pair in both orders, unreadable answers asked again, nothing dropped."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Literal

from evenhand.display import shown
from evenhand.errors import UserError
from evenhand.judges.cache import Cache, CachedChat
from evenhand.judges.chat import UNUSABLE, Chat, ChatReply, Request
from evenhand.judges.parse_verdict import Form, Reading, Unread, read, spellings
from evenhand.judges.template import Template
from evenhand.judges.verdict import Comparison, Order, Progress, Status, Verdict, settled
from evenhand.seeding import rng
from evenhand.types import Completion, Message, Prompt

_log = logging.getLogger(__name__)
Orders = Literal["both", "one"]
RETRY_TEMPERATURE = 0.7
"""At temperature 0 the same question would give the same unreadable answer."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The last reading of one question, and what it took."""

    found: Reading | Unread
    raw: str
    attempts: int
    cost: float | None

    @property
    def reading(self) -> Reading | None:
        return self.found if isinstance(self.found, Reading) else None

    @property
    def why(self) -> str:
        """Why there is no reading; empty where there is one."""
        return self.found.why if isinstance(self.found, Unread) else ""


class LLMJudge:
    """Asks `chat` by `template`. `form` says whether words or log-probs are read; `attempts` how often one question is asked.

    A pair template asks each pair in both orders, outcome = (order 1 + order 2) / 2: a judge that prefers a place and not an
    answer gives a tie. `orders` "one" asks each pair once, in an order drawn by the prompt's id (the same for every arm): half
    the calls, but a preference for a place stays in the verdicts and cannot be measured on them. A single template grades each
    answer by itself and the higher grade wins; the baseline's grades are asked once for all arms. An order without a readable
    verdict counts 1/2 and is marked invalid, with the reason. Raises UserError when nothing that came back was an answer.
    """

    def __init__(
        self, chat: Chat, template: Template, *, form: Form = "text", attempts: int = 3, temperature: float = 0.0,
        max_tokens: int | None = None, cache: Cache | None = None, orders: Orders = "both",
    ) -> None:  # fmt: skip
        self.orders, self.sample = orders, 0
        self.template, self.form, self.attempts, self.temperature = template, form, attempts, temperature
        self.max_tokens = max_tokens or template.max_tokens
        self.chat = CachedChat(chat, Cache() if cache is None else cache)
        self._labels = spellings(template, form)

    @property
    def name(self) -> str:
        return f"{self.chat.identity['model']} ({self.template.name})"

    @property
    def revision(self) -> str:
        """The template's hash, and how often a pair is asked: verdicts under different revisions must not be mixed."""
        return self.template.sha + ("" if self.orders == "both" else "-one-order")

    def __call__(self, comparisons: Sequence[Comparison], progress: Progress | None = None) -> list[Verdict]:
        """One verdict per comparison. What is settled by rule is not asked."""
        verdicts: list[Verdict | None] = [settled(c) for c in comparisons]
        open_ = [i for i, v in enumerate(verdicts) if v is None]
        judged = self._pairs if self.template.kind == "pair" else self._graded
        for i, verdict in zip(open_, judged([comparisons[i] for i in open_], progress), strict=True):
            verdicts[i] = verdict
        return [v for v in verdicts if v is not None]

    def grade(self, answers: Sequence[tuple[Prompt, Completion]], progress: Progress | None = None) -> list[float]:
        """The grade of each answer by a single template; NaN where none could be read."""
        messages = [self.template.messages(p, answer=c.text) for p, c in answers]
        return [a.reading.value if a.reading else math.nan for a in self._ask(messages, progress)]

    def _pairs(self, comparisons: Sequence[Comparison], progress: Progress | None) -> list[Verdict]:
        shown = [self._shown(c) for c in comparisons]
        messages = [self._question(c, a_first) for c, orders in zip(comparisons, shown, strict=True) for a_first in orders]
        asked = iter(self._ask(messages, progress))
        return [_mean([self._order(next(asked), a_first) for a_first in orders]) for orders in shown]

    def _shown(self, comparison: Comparison) -> tuple[bool, ...]:
        """Whether `a` stands first, for each order that is asked."""
        if self.orders == "both":
            return (True, False)
        return (bool(rng("order of a judged pair", comparison.prompt.id).random() < 0.5),)

    def _question(self, c: Comparison, a_first: bool) -> tuple[Message, ...]:
        first, second = (c.a, c.b) if a_first else (c.b, c.a)
        return self.template.messages(c.prompt, answer_a=first.text, answer_b=second.text)

    def in_both_orders(self) -> LLMJudge:
        """The same judge asked in both orders: what its self-test needs to see a preference for a place."""
        if self.orders == "both":
            return self
        twin = copy(self)
        twin.orders = "both"
        return twin

    def asked_again(self, sample: int) -> LLMJudge:
        """The same judge, model and cache asking every question for another time: sample 0 is the judge itself."""
        twin = copy(self)
        twin.sample = sample
        return twin

    def _order(self, asked: _Asked, a_first: bool) -> Order:
        order = partial(Order, a_first=a_first, raw=asked.raw, attempts=asked.attempts, cost=asked.cost)
        if asked.reading is None:
            return order(outcome=0.5, status=Status.INVALID, why=asked.why)
        value = asked.reading.value if a_first else 1.0 - asked.reading.value
        status = Status.LOGPROBS if self.form == "logprobs" else Status.READ
        return order(outcome=value, status=status, label=asked.reading.label, mass=asked.reading.mass)

    def _graded(self, comparisons: Sequence[Comparison], progress: Progress | None) -> list[Verdict]:
        messages = [self.template.messages(c.prompt, answer=x.text) for c in comparisons for x in (c.a, c.b)]
        asked = self._ask(messages, progress)
        return [_by_grades(a, b) for a, b in zip(asked[::2], asked[1::2], strict=True)]

    def _ask(self, messages: Sequence[tuple[Message, ...]], progress: Progress | None) -> list[_Asked]:
        """Every question until it can be read or `attempts` are used up; questions that can be read are asked once, and so are
        questions that got no answer: the chat model has asked again already."""
        asked: list[_Asked] = [_Asked(Unread("not asked"), "", 0, 0.0)] * len(messages)
        pending = list(range(len(messages)))
        answered = False
        for attempt in range(self.attempts):
            requests = [self._request(messages[i], attempt) for i in pending]
            again = set(pending)
            for place, reply in self.chat.complete(requests):
                index = pending[place]
                asked[index] = self._merged(asked[index], reply)
                answered |= reply.finish != UNUSABLE and not (self.form == "logprobs" and reply.text and not reply.tokens)
                if asked[index].reading is not None or not reply.usable:
                    again.discard(index)
                if progress is not None:
                    progress(len(messages) - len(again), len(messages))
            pending = sorted(again)
            if not pending:
                break
        if unread := [a.why for a in asked if a.reading is None]:
            self._say_unread(unread, len(messages), answered)
        return asked

    def _say_unread(self, reasons: Sequence[str], questions: int, answered: bool) -> None:
        commonest, times = Counter(reasons).most_common(1)[0]
        if not answered:
            raise UserError(
                f"none of {questions} questions got an answer: {commonest}",
                where=self.name,
                fix="give an OpenAI-compatible address (it ends in /v1), and check the model's name and what it can do",
            )
        _log.warning("%d of %d judgements could not be read, %d of them: %s", len(reasons), questions, times, shown(commonest))

    def _request(self, messages: tuple[Message, ...], attempt: int) -> Request:
        return Request(
            messages=messages,
            max_tokens=self.max_tokens * (1 if attempt == 0 else 2),
            temperature=self.temperature if attempt == 0 else max(self.temperature, RETRY_TEMPERATURE),
            attempt=self.sample * self.attempts + attempt,
            logprobs=self.form == "logprobs",
            labels=self._labels,
        )

    def _merged(self, before: _Asked, reply: ChatReply) -> _Asked:
        cost = self.chat.cost(reply)
        total = None if cost is None or before.cost is None else before.cost + cost
        return _Asked(read(self.template, reply, self.form), reply.text, before.attempts + 1, total)


def _mean(orders: Sequence[Order]) -> Verdict:
    return Verdict(outcome=sum(o.outcome for o in orders) / len(orders), orders=tuple(orders))


def _by_grades(a: _Asked, b: _Asked) -> Verdict:
    """The higher grade wins; a missing grade leaves the pair undecided and marked."""
    costs = (a.cost, b.cost)
    cost = None if None in costs else sum(c for c in costs if c is not None)
    order = partial(Order, a_first=True, attempts=a.attempts + b.attempts, raw=f"{a.raw}\n---\n{b.raw}", cost=cost)
    if a.reading is None or b.reading is None:
        unread = order(outcome=0.5, status=Status.INVALID, why=a.why or b.why)
        return Verdict(outcome=0.5, orders=(unread,), score_a=_value(a), score_b=_value(b))
    outcome = 0.5 if a.reading.value == b.reading.value else float(a.reading.value > b.reading.value)
    graded = order(outcome=outcome, status=Status.SCORED, label=f"{a.reading.label} : {b.reading.label}")
    return Verdict(outcome=outcome, orders=(graded,), score_a=a.reading.value, score_b=b.reading.value)


def _value(asked: _Asked) -> float:
    return asked.reading.value if asked.reading else math.nan
