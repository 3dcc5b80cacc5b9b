"""What a worker tells the scheduler: how far it is, what a person should know, how it ended. Never part of a result."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from typing_extensions import override

import evenhand
from evenhand.display import shown
from evenhand.errors import UserError

_EVERY = 0.1
"""Seconds between two reports sent; a report only moves a bar."""
_PACKAGE = str(Path(evenhand.__file__).parent)
_DISK = {
    errno.ENOSPC: "the disk is full; fix: free some space",
    errno.EDQUOT: "the quota of the disk is used up; fix: free some space",
    errno.EFBIG: "a file would be longer than this process may write; fix: raise the limit (`ulimit -f`)",
}


@dataclass(frozen=True, slots=True)
class Report:
    """How far the node is: `done` of `total` units, and figures to show."""

    done: float
    total: float
    shown: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Note:
    """A warning for a person: rows left out, a slower path taken."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The artifact is in the store. `peak_bytes` is what a rank says of its memory."""

    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The stage raised; `error` is one line. `smaller` is set where micro-batches of that many tokens may fit."""

    error: str
    smaller: int | None = None


@dataclass(frozen=True, slots=True)
class Spoilt:
    """An input is damaged: artifact `key`, and the message about it. The stage has not begun."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Waits:
    """The stage needs people first; `text` says what for, in one line."""

    text: str


@dataclass(frozen=True, slots=True)
class Died:
    """The worker's process ended without a last word; `error` is one line. The artifact may be there all the same."""

    error: str


Message = Report | Note | Finished | Failed | Spoilt | Waits | Died


class Pipe(Protocol):
    """The worker's end of what leads to the scheduler: a connection, or what a cluster has instead."""

    def send(self, message: Message, /) -> None: ...

    def close(self) -> None: ...


class Sender:
    """The worker's end of the pipe. A stage's threads may report and warn at once; a message goes through whole."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe, self._lock, self._last = pipe, threading.Lock(), 0.0

    def send(self, message: Message) -> None:
        with self._lock:
            self._pipe.send(message)

    def report(self, done: float, total: float, **shown: Any) -> None:
        """The `report` a stage is given: its latest figures, sent a few times a second."""
        now = time.monotonic()
        if now - self._last >= _EVERY:
            self._last = now
            self.send(Report(plain(done), plain(total), {name: plain(value) for name, value in shown.items()}))

    def close(self) -> None:
        with self._lock:
            self._pipe.close()


def relay_warnings(sender: Sender) -> None:
    """Sends this package's own warnings to the scheduler too; other libraries' stay in the log."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("evenhand").addHandler(_Relay(sender))
    show = warnings.showwarning

    def told(message: Warning | str, category: type[Warning], filename: str, *rest: Any, **named: Any) -> None:
        show(message, category, filename, *rest, **named)
        if filename.startswith(_PACKAGE):
            sender.send(Note(str(message)))

    warnings.showwarning = told


class _Relay(logging.Handler):
    def __init__(self, sender: Sender) -> None:
        super().__init__(logging.WARNING)
        self.sender = sender

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.sender.send(Note(record.getMessage()))


def plain(value: Any) -> Any:
    """A figure a stage shows, as a plain number or text (never a tensor: it crosses a process boundary)."""
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    return float(value) if hasattr(value, "__float__") else str(value)


def death(code: int, who: str, log: Path | None) -> str:
    """How a process ended that sent no last word."""
    if code >= 0:
        return f"{who} ended with code {code} before it finished" + (f" (see {log})" if log is not None else "")
    name = signal.Signals(-code).name
    memory = " (often: out of memory; use fewer workers or smaller micro-batches)" if name == "SIGKILL" else ""
    return f"{who} was killed by {name}{memory}"


def one_line(error: BaseException) -> str:
    """An exception in one line: a user's error as it is, any other with its type."""
    if isinstance(error, UserError):
        return shown("; ".join(line.strip() for line in str(error).splitlines()))
    text = shown(" ".join(str(error).split()))
    for number, words in _DISK.items():
        if os.strerror(number) in text:  # from Python, or from a library that writes for us
            return f"{words} and give the same command again, it goes on ({type(error).__name__})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
