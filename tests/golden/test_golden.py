"""Twenty steps of every method, as they were: a refactor changes none, and a change that is meant shows as a diff.

`python -m tests.golden.write` writes the files anew and prints what changed; the commit says why.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from evenhand import methods
from tests.battery.variants import VARIANTS, lanes
from tests.golden import runs

FOLDER = Path(__file__).parent
RELATIVE = {"rebel_online": 2e-5}
"""Layer norms run in float32, and another make of processor rounds them otherwise: below 1e-6 of a value beside 3e-6, but for a
method that learns as fast as this one: 9e-6 of its gradient."""
NAMES = sorted({*methods.METHODS, *VARIANTS})


@pytest.mark.parametrize("name", lanes(NAMES))
def test_curve_is_as_it_was(name: str) -> None:
    known, found = runs.parsed((FOLDER / f"{name}.txt").read_text()), runs.parsed(runs.table(list(runs.run(name))))
    assert list(known) == list(found)
    for column, values in known.items():
        assert found[column] == pytest.approx(values, rel=RELATIVE.get(name, 1e-6), abs=3e-6), column


def test_no_file_without_a_method() -> None:
    assert {p.stem for p in FOLDER.glob("*.txt")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_curve_moves(name: str) -> None:
    """A golden file of a method that does nothing would prove nothing."""
    known = runs.parsed((FOLDER / f"{name}.txt").read_text())
    assert len(known["step"]) == runs.STEPS
    assert sum(norm > 1e-4 for norm in known["grad_norm"]) >= runs.STEPS // 2
    assert len(set(known["grad_norm"])) > runs.STEPS // 2
