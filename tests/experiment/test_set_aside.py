"""Results of earlier experiments in one folder are all kept."""

from __future__ import annotations

from pathlib import Path

from evenhand.results import unchanged


def test_what_is_set_aside_twice_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / unchanged.RECORD).write_text("{}")
    for text in ("first", "second", "third"):
        (tmp_path / "results.json").write_text(text)
        if text != "second":
            (tmp_path / "report.html").write_text(text)
        unchanged.set_aside(tmp_path)
    held = {path.name: path.read_text() for path in tmp_path.iterdir() if path.name != unchanged.RECORD}
    assert held == {
        "earlier-results.json": "first", "earlier-report.html": "first", "earlier-2-results.json": "second",
        "earlier-3-results.json": "third", "earlier-3-report.html": "third",
    }  # fmt: skip
