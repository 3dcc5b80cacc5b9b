"""Style control: the win rate at equal length and equal use of headers, lists and bold.

Arena-Hard's features and idea (Li et al. 2024), with three repairs: features are scaled but not centred (centring moves the
evaluation point to the average style gap, which makes control vacuous for one model against one baseline); prompts are
resampled, not rows (a strong verdict is three copies of a row and both orders share a prompt); any subset of features works.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from evenhand.errors import UserError
from evenhand.seeding import rng
from evenhand.stats.arrays import Array, as_vector
from evenhand.stats.intervals import Interval
from evenhand.stats.logistic import ridge_logistic

RIDGE = 1e-3
FEATURES = ("length", "headers", "lists", "bold")

_CODE = re.compile(r"```.*?```", re.DOTALL)
_HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
_LIST = re.compile(r"^\s*(?:\d+\.|[-*+])\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=\S)[^*\n]+(?<=\S)\*\*|__(?=\S)[^_\n]+(?<=\S)__")


@dataclass(frozen=True, slots=True)
class Style:
    """How a text is dressed: its length (any one unit) and markdown counts outside code blocks."""

    length: float
    headers: int
    lists: int
    bold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleControlled:
    """Win rate at equal style with its prompt-bootstrap interval, the raw win rate, and effects in logits per sd."""

    estimate: float
    ci95: Interval
    win_rate: float
    effects: dict[str, float]
    n: int


def style_of(text: str, length: float | None = None) -> Style:
    """Count headers, list items and bold spans outside fenced code; `length` defaults to characters of the whole text.

    >>> style_of("# Plan\\n- **one**\\n- two\\n```\\n# not a header\\n```")
    Style(length=45, headers=1, lists=2, bold=1)
    """
    prose = _CODE.sub("", text)
    return Style(
        length=len(text) if length is None else length,
        headers=len(_HEADER.findall(prose)),
        lists=len(_LIST.findall(prose)),
        bold=len(_BOLD.findall(prose)),
    )


def style_gaps(model: Sequence[Style], baseline: Sequence[Style]) -> Array:
    """Features [n, 4], model minus baseline: (L_m - L_b)/(L_m + L_b); of densities x = c/(L + 1): (x_m - x_b)/(x_m + x_b + 1)."""
    if len(model) != len(baseline):
        raise UserError(f"{len(model)} and {len(baseline)} texts", where="style_gaps")
    m, b = (
        np.array([[s.length, s.headers, s.lists, s.bold] for s in side], dtype=float).reshape(-1, 4) for side in (model, baseline)
    )
    total = m[:, :1] + b[:, :1]
    length = np.divide(m[:, :1] - b[:, :1], total, out=np.zeros_like(total), where=total > 0)
    dense_m, dense_b = m[:, 1:] / (m[:, :1] + 1), b[:, 1:] / (b[:, :1] + 1)
    return np.concatenate([length, (dense_m - dense_b) / (dense_m + dense_b + 1)], axis=1)


def style_controlled(
    outcome: ArrayLike,
    gaps: ArrayLike,
    *,
    prompt: Sequence[Hashable] | None = None,
    weight: ArrayLike | None = None,
    features: Sequence[str] = FEATURES,
    draws: int = 1000,
    seed: int = 0,
) -> StyleControlled:
    """sigma(theta) of the fit P(win) = sigma(theta + beta^T gap/sd): the win rate where both answers are dressed alike.

    `outcome` [m] in [0, 1], `gaps` [m, 4] from `style_gaps`, `prompt` the name of each row's prompt (rows of one prompt are
    resampled together), `weight` [m] (3 for Arena-Hard's strong verdicts). Without features: the weighted raw win rate.
    """
    y, used, columns = _checked(outcome, gaps, features)
    design = np.concatenate([np.ones((len(y), 1)), columns], axis=1)
    rows = np.ones(len(y)) if weight is None else as_vector(weight, "style_controlled weight")
    precision = np.full(design.shape[1], RIDGE)
    (fit,) = ridge_logistic(design, y, rows[None], precision=precision)
    known: dict[Hashable, int] = {}
    index = np.arange(len(y)) if prompt is None else np.array([known.setdefault(p, len(known)) for p in prompt])
    n = int(index.max()) + 1
    counts = rng(seed, "style_controlled", n).multinomial(n, np.full(n, 1 / n), size=draws)
    resampled = ridge_logistic(design, y, rows * counts[:, index], precision=precision)
    low, high = np.quantile(expit(resampled[:, 0]), (0.025, 0.975))
    return StyleControlled(
        estimate=float(expit(fit[0])),
        ci95=(float(low), float(high)),
        win_rate=float(np.average(y, weights=rows)),
        effects=dict(zip(used, fit[1:].tolist(), strict=True)),
        n=n,
    )


def arena_hard_outcome(verdict: str) -> tuple[float, float]:
    """(score of answer A, weight) of an Arena-Hard verdict: strong verdicts weigh three. In swapped games use 1 - score.

    >>> arena_hard_outcome("A>>B"), arena_hard_outcome("A=B"), arena_hard_outcome("B>A")
    ((1.0, 3.0), (0.5, 1.0), (0.0, 1.0))
    """
    table = {"A>>B": (1.0, 3.0), "A>B": (1.0, 1.0), "A=B": (0.5, 1.0), "B>A": (0.0, 1.0), "B>>A": (0.0, 3.0)}
    if verdict not in table:
        raise UserError(f"unknown verdict {verdict!r}", where="arena_hard_outcome", fix=f"one of {list(table)}")
    return table[verdict]


def _checked(outcome: ArrayLike, gaps: ArrayLike, features: Sequence[str]) -> tuple[Array, list[str], Array]:
    """Outcomes, the names of the wanted features that vary at all, and those features in units of their sd (not centred)."""
    y, x = as_vector(outcome, "style_controlled outcome"), np.asarray(gaps, dtype=float)
    if y.min() < 0.0 or y.max() > 1.0 or x.shape != (len(y), len(FEATURES)):
        raise UserError(f"outcomes in [0, 1] and gaps [{len(y)}, 4] expected, got {x.shape}", where="style_controlled")
    unknown = set(features) - set(FEATURES)
    if unknown:
        raise UserError(f"unknown features {sorted(unknown)}", where="style_controlled", fix=f"choose from {FEATURES}")
    used = [f for f in FEATURES if f in features and x[:, FEATURES.index(f)].std() > 0.0]
    columns = x[:, [FEATURES.index(f) for f in used]]
    return y, used, columns / columns.std(axis=0, ddof=1) if used else columns
