"""A fake run with its report, and a browser to open it in."""

from __future__ import annotations

from pathlib import Path

import pytest

import evenhand.report
from tests.report.fake_run import write_run


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("report") / "run")
    evenhand.report.write(folder)
    return folder


@pytest.fixture(scope="session")
def page(run_dir: Path) -> str:
    return (run_dir / "report.html").read_text(encoding="utf-8")
