"""Every claim of the theory table holds; each is a test of the core objectives against a closed form or a theorem."""

import math

import pytest

from evenhand.theory.rows import TheoryRow, claims

CLAIMS = claims()


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.text)
def test_claim(claim):
    row = claim.check()
    assert row.holds, f"expected {row.expected}, measured {row.measured:.2e}, tolerance {row.tolerance:.0e}"


def test_the_table_is_as_strict_as_it_says():
    assert all(c.tolerance <= 1e-6 for c in CLAIMS if c.expected == "0")
    assert all(c.tolerance >= 1e-3 for c in CLAIMS if c.expected == "> 0")
    assert {c.expected for c in CLAIMS} == {"0", "> 0"}
    assert len({c.text for c in CLAIMS}) == len(CLAIMS)


@pytest.mark.parametrize("expected", ["0", "> 0"])
def test_an_undefined_measurement_never_holds(expected):
    assert not TheoryRow("", expected, math.nan, 1e-6).holds
