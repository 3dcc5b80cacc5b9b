"""What the command sets before NumPy is loaded."""

from __future__ import annotations

import os

import pytest

from evenhand import cli


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("4", "4")])
def test_numpys_library_has_one_thread_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    monkeypatch.setattr(cli, "app", lambda: None)
    cli.main()
    assert os.environ["OPENBLAS_NUM_THREADS"] == expected
