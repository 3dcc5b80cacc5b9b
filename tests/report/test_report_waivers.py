"""A check that was let pass is shown on the page, with the reason, whatever is in it."""

from __future__ import annotations

import json

import evenhand.report
from tests.report.fake_run import write_run


def test_waivers_are_shown_and_escaped(tmp_path) -> None:
    folder = write_run(tmp_path / "run")
    path = folder / "results.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    evenhand.report.write(folder)
    assert "Checks that were waived" not in (folder / "report.html").read_text(encoding="utf-8")
    results["waived"] = [{"check": "D17", "reason": "a test of <memory>"}]
    path.write_text(json.dumps(results), encoding="utf-8")
    evenhand.report.write(folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Checks that were waived" in page
    assert "D17: a test of &lt;memory&gt;" in page
