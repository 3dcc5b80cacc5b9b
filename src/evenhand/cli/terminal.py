"""What commands share of a terminal: exit codes, room for tables, a stop that is no error, and how far a command is."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TextIO

import typer
from rich.console import Console

BUG, WRONG_INPUT, FAILED, WAITING, STOPPED = 1, 2, 3, 4, 130
_WIDE = 160
"""Columns of a table that goes to a file or a pipe."""


def wide_console() -> Console:
    """The terminal's own width, or room for a table where it goes to a file or a pipe."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=_WIDE)


@contextmanager
def stoppable(errors: Console) -> Iterator[None]:
    """Inside, Ctrl-C and a cluster's polite stop (SIGTERM) end the command with a word and `STOPPED`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        errors.print("Stopped. What was begun is kept; the same command goes on from there.")
        raise typer.Exit(STOPPED) from None


BETWEEN_LINES = 30.0
"""Seconds between two lines where the output is no terminal."""


class Waiting:
    """What is being done where nobody knows how long it takes: `with Waiting("opening the model"):`, and `now(text)` inside.

    A terminal has a line that turns; elsewhere a line comes after `first` seconds and then every `BETWEEN_LINES`.
    """

    def __init__(self, doing: str, out: IO[str] | None = None, *, first: float = 5.0) -> None:
        self.doing, self.out, self.first = doing, out or sys.stderr, first
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._begun = time.monotonic()

    def now(self, doing: str) -> None:
        """What is being done from here on."""
        self.doing = doing

    def __enter__(self) -> Waiting:
        self._begun = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._over.set()
        self._thread.join()
        if self.out.isatty():
            print("\r\x1b[K", end="", file=self.out, flush=True)

    def _watch(self) -> None:
        terminal, wait = self.out.isatty(), self.first
        while not self._over.wait(0.25 if terminal and self._elapsed() >= 1 else min(wait, 1.0) if terminal else wait):
            seconds = round(self._elapsed())
            if terminal and seconds >= 1:
                print(f"\r\x1b[K{self.doing}, {seconds} s", end="", file=self.out, flush=True)
            elif not terminal:
                print(f"{self.doing}, {seconds} s so far", file=self.out, flush=True)
                wait = BETWEEN_LINES

    def _elapsed(self) -> float:
        return time.monotonic() - self._begun


class Progress:
    """Called with (done, total). The time left is estimated from what was done since the first call: kept work came for free."""

    def __init__(self, doing: str, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.doing, self.out, self.clock = doing, out or sys.stderr, clock
        self._begun: tuple[float, int] | None = None
        self._said = clock()

    def __call__(self, done: int, total: int) -> None:
        now = self.clock()
        if self._begun is None or done < self._begun[1]:
            self._begun = now, done
        terminal = self.out.isatty()
        if not terminal and now - self._said < BETWEEN_LINES:
            return
        self._said = now
        line = f"{self.doing} {done} of {total}{self._left(now, done, total)}"
        print(f"\r\x1b[K{line}" if terminal else line, end="" if terminal and done < total else "\n", file=self.out, flush=True)

    def _left(self, now: float, done: int, total: int) -> str:
        assert self._begun is not None
        begun, first = self._begun
        if done <= first or done >= total:
            return ""
        seconds = round((now - begun) / (done - first) * (total - done))
        return f", {seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d} left"
