"""Asking a server again that is busy, cannot be reached, or answered what nobody can read."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from itertools import count
from typing import TypeVar

from evenhand.judges.completion import Odd

LONGEST_WAIT = 60.0
ODD_ATTEMPTS = 3
"""How often a reply that is none is asked for again before it counts as unusable."""
T = TypeVar("T")
_JITTER = random.Random(0)  # only spaces retries out; nothing that is reported depends on it


class Busy(Exception):
    """The server could not be reached or asked to be left alone; `after` seconds, when it said for how long."""

    def __init__(self, what: str, after: float | None = None) -> None:
        self.after = after
        super().__init__(what)


def asked(ask: Callable[[], T], *, attempts: int, sleep: Callable[[float], None]) -> T:
    """What `ask` returns; after Busy or Odd it is called again, `attempts` times in all, after Odd at most `ODD_ATTEMPTS`.

    Between two calls 1, 2, 4, ... seconds with a random tenth more, or what the server asked for if that is longer; a minute at
    the most. Raises: the last Busy or Odd where no attempt is left, and at once whatever else `ask` raises.

    >>> answers, pauses = iter([Busy("HTTP 503"), Busy("HTTP 429", after=30), "yes"]), []
    >>> def ask():
    ...     if isinstance(answer := next(answers), Busy):
    ...         raise answer
    ...     return answer
    >>> asked(ask, attempts=3, sleep=pauses.append), [round(pause) for pause in pauses]
    ('yes', [1, 30])
    """
    for attempt in count(1):
        try:
            return ask()
        except (Busy, Odd) as error:
            if attempt >= (min(ODD_ATTEMPTS, attempts) if isinstance(error, Odd) else attempts):
                raise
            after = error.after if isinstance(error, Busy) and error.after is not None else 0.0
        own = 2.0 ** min(attempt - 1, 10) * (1 + 0.1 * _JITTER.random())
        sleep(min(max(own, after), LONGEST_WAIT))
    raise AssertionError("the attempts have an end")


def check_busy(status: int, retry_after: str | None) -> None:
    """Raises Busy for a status that says: not now. What cannot be mended by waiting (501, 505) is none."""
    if status in (408, 409, 425, 429) or (status >= 500 and status not in (501, 505)):
        raise Busy(f"HTTP {status}", seconds(retry_after))


def seconds(header: str | None) -> float | None:
    """Seconds of a Retry-After header, given as a number or as a date; None where it says none.

    >>> seconds("7"), seconds("-1"), seconds("soon"), seconds("Wed, 21 Oct 2015 07:28:00 GMT")
    (7.0, None, None, 0.0)
    """
    if not header:
        return None
    try:
        found = float(header)
        return found if found >= 0 else None  # and None for NaN
    except ValueError:
        pass  # not a number: then it is a date
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None  # neither; the usual backoff then
