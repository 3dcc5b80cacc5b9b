"""Whatever is made from the code is current: pages, schemas, and the record of first defaults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evenhand.manual.__main__ import main
from evenhand.manual.generated import GENERATED
from tests.conftest import ROOT


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_it_is_current(path: Path):
    assert GENERATED[path](text := path.read_text(encoding="utf-8")) == text, "run: python -m evenhand.manual"


def test_every_page_that_says_it_is_made_by_the_command_is_in_the_table():
    saying = {page for page in (ROOT / "docs").rglob("*.md") if "ritten by `python -m evenhand.manual`" in page.read_text()}
    assert saying <= set(GENERATED)
    assert saying, "no page says so any more: look for its words of today"


def test_a_stale_file_is_named_by_a_check_and_renewed_without_one(tmp_path, monkeypatch, capsys):
    stale, current = tmp_path / "stale.md", tmp_path / "current.md"
    stale.write_text("old")
    current.write_text("as it is")
    for path in list(GENERATED):
        monkeypatch.delitem(GENERATED, path)
    monkeypatch.setitem(GENERATED, stale, lambda text: "new")
    monkeypatch.setitem(GENERATED, current, lambda text: text)
    assert (main(check=True), stale.read_text()) == (1, "old")
    assert capsys.readouterr().out == f"out of date: {stale}\n"
    assert (main(check=False), stale.read_text()) == (0, "new")
    assert capsys.readouterr().out == f"written: {stale}\n"
    assert main(check=True) == 0


@pytest.mark.slow
def test_the_command_runs():
    run = subprocess.run([sys.executable, "-m", "evenhand.manual", "--check"], capture_output=True, text=True, check=True)
    assert run.stdout == "everything is current\n"
