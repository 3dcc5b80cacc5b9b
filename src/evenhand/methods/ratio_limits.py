"""The limits that TOPR holds its importance ratios between."""

from __future__ import annotations

from evenhand.errors import UserError


def ratio_limits(low: float, high: float, good_low: float, good_high: float) -> dict[str, float]:
    """TOPR's truncation limits, checked. Raises: UserError where they are none."""
    for name, least, most in (("low", low, high), ("good_low", good_low, good_high)):
        if not 0 <= least <= most or most <= 0:
            why = "a ratio is held between two limits, neither below 0, the upper one above it"
            fix = "use 0 and 1 for a taper, 1 and 1 for no correction"
            raise UserError(f"{name} is {least:g} and the limit above it {most:g}", where="topr", why=why, fix=fix)
    return {"low": low, "high": high, "good_low": good_low, "good_high": good_high}
