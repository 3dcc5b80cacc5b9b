"""Broken inputs: a few hundred of each reader always, a hundred thousand in the slow lane."""

from __future__ import annotations

import pytest

from tests.fuzz.drive import READERS, drive


@pytest.mark.parametrize("name", READERS)
def test_what_is_broken_gives_one_message(name):
    found = drive(name, range(300))
    assert found.uncaught == []
    assert found.read + found.refused == 300
    assert found.refused or name in ("judge_reply", "judge_cache")  # these count what they cannot read


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_hundred_thousand_of_each(name):
    found = drive(name, range(100_000))
    assert found.uncaught == []
    assert found.slow == []
