"""What tests of commands share."""

from __future__ import annotations

import sys

import pytest

import evenhand.cli


@pytest.fixture
def cli(capsys, monkeypatch):
    """A command as it is typed: its exit code, and what it wrote to the screen and to the errors."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["evenhand", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            evenhand.cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call
