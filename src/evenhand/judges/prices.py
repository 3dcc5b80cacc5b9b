"""What answers cost, and a limit that holds before a request is sent."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from evenhand.errors import UserError
from evenhand.judges.chat import ChatReply, Request, Usage

TABLE = Path(__file__).with_name("prices.yaml")
BYTES_PER_TOKEN = 3.0
"""Cautious: English has about 4 bytes of UTF-8 per token, code fewer; a Chinese character has 3 and is about one token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float
    cached: float | None = None

    def cost(self, usage: Usage) -> float:
        """>>> Price(input=2.0, output=8.0, cached=0.5).cost(Usage(prompt=1000, completion=100, cached=400))
        0.0022
        """
        seen = self.input if self.cached is None else self.cached
        return ((usage.prompt - usage.cached) * self.input + usage.cached * seen + usage.completion * self.output) / 1e6

    def most(self, request: Request) -> float:
        """What a request can cost at the most, from its length and its limit."""
        length = sum(len(m.content.encode("utf-8", "surrogatepass")) for m in request.messages)
        return self.cost(Usage(prompt=round(length / BYTES_PER_TOKEN) + 16, completion=request.max_tokens))


def price_of(model: str, given: Mapping[str, float] | None = None) -> Price | None:
    """The given price, else the table's, else None: an unknown price is not zero."""
    if given is not None:
        try:
            return Price(**given)
        except TypeError as error:
            raise UserError(
                f"not a price: {dict(given)}", where="price", fix="{input: ..., output: ...}, cached: optional"
            ) from error
    known = yaml.safe_load(TABLE.read_text(encoding="utf-8"))["models"]
    return Price(**known[model]) if model in known else None


class Budget:
    """Dollars that may be spent. `reserve` before a request is sent, `settle` with its answer; safe to share by threads."""

    def __init__(self, limit: float | None, price: Price | None, model: str) -> None:
        if limit is not None and price is None:
            raise UserError(
                f"the price of '{model}' is not known, so a limit of ${limit:g} cannot be kept",
                where="judge.max_cost",
                fix="give `price: {input: ..., output: ...}` in dollars per million tokens, or remove the limit",
            )
        self.limit, self.price = limit, price
        self.spent = self._held = 0.0
        self._lock = threading.Lock()

    def reserve(self, request: Request) -> float:
        """The dollars set aside for a request. Raises UserError, before anything is sent, when they might exceed the limit."""
        amount = self.price.most(request) if self.price else 0.0
        with self._lock:
            if self.limit is not None and self.spent + self._held + amount > self.limit:
                raise UserError(
                    f"the next request might cost ${amount:.4f}; ${self.spent:.4f} of ${self.limit:g} are spent",
                    where="judge.max_cost",
                    why="the limit is checked before a request is sent; answers so far are kept",
                    fix="raise the limit and run again: what was answered is not asked again",
                )
            self._held += amount
        return amount

    def settle(self, reserved: float, reply: ChatReply | None) -> None:
        """Replaces what was reserved by what was used; a request that failed was free, one without a count cost its reserve."""
        used = 0.0
        if reply is not None and self.price is not None:
            used = self.price.cost(reply.usage) if reply.usage else reserved
        with self._lock:
            self._held -= reserved
            self.spent += used
