"""Waiting where nobody knows how long it takes: a line after a while, none for what is quick."""

from __future__ import annotations

import io
import threading

from evenhand.cli.terminal import Waiting


class Told(io.StringIO):
    """Remembers that something was written, so that a test waits for a state and not for a time."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str) -> int:
        found = super().write(text)
        self.written.set()
        return found


def test_what_takes_long_says_so_and_what_it_does_now():
    out = Told()
    with Waiting("looking", out, first=0.01) as waiting:
        waiting.now("D3 the data are there")
        assert out.written.wait(60)
    assert out.getvalue().split(",")[0] in ("looking", "D3 the data are there")


def test_what_is_quick_says_nothing():
    out = Told()
    with Waiting("looking", out, first=3600.0):
        pass
    assert out.getvalue() == ""
