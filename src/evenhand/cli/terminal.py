"""What commands share of a terminal: exit codes, room for tables, a stop that is no error."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

BUG, WRONG_INPUT, FAILED, WAITING, STOPPED = 1, 2, 3, 4, 130
_WIDE = 160
"""Columns of a table that goes to a file or a pipe."""


def wide_console() -> Console:
    """The terminal's own width, or room for a table where it goes to a file or a pipe."""
    from rich.console import Console

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
