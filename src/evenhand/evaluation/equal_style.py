"""The win rate at equal style as files and pages hold it: one that cannot be fitted is a note in its place."""

from __future__ import annotations

from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.stats.style import style_controlled


def at_equal_style(outcome: np.ndarray, gaps: np.ndarray, **settings: Any) -> dict[str, Any]:
    """The win rate at equal style with its interval and effects (see `stats.style_controlled`, which takes the `settings`); where
    the data cannot support the fit, a note that says why: the rest still counts."""
    try:
        fit = style_controlled(outcome, gaps, **settings)
    except UserError as error:
        return {"win_rate": None, "note": f"refused: {error.why or error.what}"}
    return {"win_rate": fit.estimate, "ci95": list(fit.ci95), "effects": fit.effects}
