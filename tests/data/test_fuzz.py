"""Hostile files by seed: every case ends with groups or with a UserError. `tests/data/fuzzing.py` makes and tries them."""

import os

import pytest

from tests.data.fuzzing import MAKERS, cases

FEW = {"dataset": 15, "parquet": 60}
MANY = int(os.environ.get("EVENHAND_FUZZ_CASES", "100000"))


def uncaught(reader: str, count: int) -> list[str]:
    outcomes = [(seed, outcome) for seed, outcome, _ in cases(reader, count)]
    assert {outcome for _, outcome in outcomes} > {"refused"} or reader == "dataset", "some cases must be readable"
    return [f"{reader} {seed}: {outcome}" for seed, outcome in outcomes if outcome not in ("groups", "refused")]


@pytest.mark.parametrize("reader", MAKERS)
def test_no_case_raises_anything_but_a_user_error(reader):
    assert not uncaught(reader, FEW.get(reader, 300))


@pytest.mark.slow
@pytest.mark.parametrize("reader", MAKERS)
def test_no_case_of_many_raises_anything_but_a_user_error(reader):
    assert not uncaught(reader, MANY)[:3]
