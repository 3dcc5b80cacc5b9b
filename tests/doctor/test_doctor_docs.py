"""The page on the doctor lists every check as it is."""

from pathlib import Path

import pytest

from evenhand.doctor import CHECKS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("id", CHECKS)
def test_every_check_is_listed(id: str) -> None:
    check = CHECKS[id]
    assert f"| {id} | {'quick' if check.quick else 'full'} | {check.title} |" in PAGE


def test_nothing_else_is_listed() -> None:
    rows = [line.split("|")[1].strip() for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| id")]
    assert sorted(rows) == sorted(CHECKS)
