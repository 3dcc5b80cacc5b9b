"""A reward or environment that answers in time, or is given up; while it does not, somebody says what is waited for."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from evenhand.errors import UserError

_log = logging.getLogger(__name__)
SAY_EVERY = 30.0
"""Seconds between two lines that say what is waited for."""


NO_SCORE = ("no score", "make the reward faster, or give it more time: `seconds: ...`")


@contextlib.contextmanager
def waiting_for(what: str, seconds: float, *, say_every: float = SAY_EVERY, late: tuple[str, str] = NO_SCORE) -> Iterator[None]:
    """Says what is waited for, again and again, and raises UserError after `seconds`: in the main thread, where that can be.

    `late` are the words for that: what is missing, and how to mend it."""
    done = threading.Event()

    def say() -> None:
        start = time.monotonic()
        while not done.wait(say_every):
            _log.warning("waiting for %s: %.0f of %g seconds", what, time.monotonic() - start, seconds)

    speaker = threading.Thread(target=say, daemon=True, name="waiting-for")
    speaker.start()
    try:
        with _alarm(what, seconds, late):
            yield
    finally:
        done.set()
        speaker.join()


@contextlib.contextmanager
def _alarm(what: str, seconds: float, late: tuple[str, str]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        missing, fix = late
        raise UserError(f"{missing} after {seconds:g} seconds", where=what, fix=fix)

    before, start = signal.signal(signal.SIGALRM, ring), time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again: the function may catch the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # somebody else's alarm, which goes on
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - start), 0.001), interval)
