"""Levels of repeated looks: they add up to the plan's error, and beyond it the page says by how much more."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps

from evenhand.errors import UserError
from evenhand.stats.looks import look, spending


def test_spending_is_obrien_flemings() -> None:
    for share in (0.1, 0.4, 0.9):
        assert spending(share) == pytest.approx(2 * sps.norm.sf(sps.norm.ppf(0.975) / math.sqrt(share)))
    assert (spending(0.0), spending(1.0), spending(3.0)) == (0.0, 0.05, 0.05)


def test_planned_looks_spend_no_more_than_alpha() -> None:
    designs = [(2, 100), (3, 100), (5, 100), (5, 400)]
    levels = [look(designs[:j], (5, 400)).alpha for j in range(1, 5)]
    assert math.fsum(levels) == pytest.approx(0.05)
    assert levels[0] == pytest.approx(spending(2 * 100 / 2000))
    last = look(designs, (5, 400))
    assert (last.count, last.spent) == (4, pytest.approx(0.05))
    assert "planned 5 seeds and 400 prompts" in last.note


def test_one_look_at_the_plan_or_without_one_has_all() -> None:
    for planned in (None, (3, 128)):
        found = look([(3, 128)], planned)
        assert (found.count, found.alpha, found.spent, found.note) == (1, 0.05, 0.05, "")


def test_the_same_design_is_no_new_look() -> None:
    assert look([(3, 128)] * 5) == look([(3, 128)])


def test_more_than_planned_is_said() -> None:
    found = look([(3, 128), (4, 128), (5, 128)])
    assert found.alpha == pytest.approx(0.05 / 12)
    assert found.spent == pytest.approx(0.05 * (1 + 1 / 6 + 1 / 12))
    assert "looked at 3 times, planned 1" in found.note
    assert "6.2 % likely, not 5 %" in found.note
    beyond = look([(3, 128), (5, 128)], (3, 128))
    assert "beyond the plan of 3 seeds and 128 prompts" in beyond.note


def test_looking_until_it_is_significant_errs_no_more_than_stated() -> None:
    """5000 studies without a difference, looked at after each fifth: stopping at p < .05 errs 14 %, at these levels 5."""
    rng, designs = np.random.default_rng(0), [(5, 40 * j) for j in range(1, 6)]
    levels = [look(designs[:j], designs[-1]).alpha for j in range(1, 6)]
    sums = np.cumsum(rng.normal(size=(5000, 5)), axis=1) / np.sqrt(np.arange(1, 6))
    p = 2 * sps.norm.sf(np.abs(sums))
    assert (p < 0.05).any(axis=1).mean() > 0.12
    assert (p < np.array(levels)).any(axis=1).mean() < 0.055


def test_no_look_is_no_look() -> None:
    with pytest.raises(UserError, match="nothing was looked at"):
        look([])
