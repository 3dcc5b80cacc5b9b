"""How a judge behaved: what could not be read, how often it contradicts itself, which place it prefers, what it cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from evenhand.judges.verdict import SAID, Comparison, Order, Status, Verdict, said_twice
from evenhand.stats.agreement import Level, agreement_of, repeat_noise

LOW_MASS = 0.9
"""Below this the model put much probability on words that are no verdict."""


def account(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Shares over all verdicts, as plain values; a field is absent where the judge has nothing of the kind.

    `invalid`: pairs with an order that gave no usable verdict. `ties`: pairs at exactly 1/2. `consistency`: of pairs asked in
    both orders and read, the share with the same winner (or a tie) in both. `p_first`: how often the answer shown first was
    preferred, ties counted half; 1/2 without position bias. `one_order`: share of pairs asked in one order only; these tell
    nothing of position bias, and `consistency` and `p_first` are absent. `mass`: mean probability of the verdict's words,
    with log-probs.
    """
    rows = list(verdicts)
    both = said_twice(rows)
    shown = [_first_wins(o) for v in rows for o in v.orders if o.status in SAID]
    alone = [len(v.orders) == 1 and v.orders[0].status in SAID for v in rows]
    masses = [o.mass for v in rows for o in v.orders if o.status is Status.LOGPROBS]
    found: dict[str, Any] = {
        "n": len(rows),
        "invalid": _share(v.invalid for v in rows),
        "ties": _share(v.outcome == 0.5 for v in rows),
        "identical": _share(any(o.status is Status.IDENTICAL for o in v.orders) for v in rows),
        "empty": _share(any(o.status is Status.EMPTY for o in v.orders) for v in rows),
    }
    if both:
        found["consistency"] = _share(_winner(a) == _winner(b) for a, b in both)
    if any(alone):
        found["one_order"] = _share(alone)
    elif shown:
        found["p_first"] = float(np.mean(shown))
    if masses:
        found["mass"], found["low_mass"] = float(np.mean(masses)), _share(m < LOW_MASS for m in masses)
    return found | _spent(rows)


def by_length(verdicts: Sequence[Verdict], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Mean lengths of both sides in characters, and the win rate where the answer is longer and where it is not."""
    lengths = np.array([(len(c.a.text), len(c.b.text)) for c in comparisons], dtype=float).reshape(-1, 2)
    outcome, longer = np.array([v.outcome for v in verdicts]), lengths[:, 0] > lengths[:, 1]
    mean = lambda values: float(values.mean()) if len(values) else None  # noqa: E731
    return {
        "mean_chars": mean(lengths[:, 0]), "mean_chars_baseline": mean(lengths[:, 1]), "longer": mean(longer),
        "win_rate_longer": mean(outcome[longer]), "win_rate_not_longer": mean(outcome[~longer]),
    }  # fmt: skip


Votes = Sequence[Mapping[str, float | None]]
"""Per pair the outcomes by name, None where there was no usable verdict; see `Verdict.votes`."""


def jury_agreement(votes: Votes) -> dict[str, Any]:
    """How far the judges of a jury agree beyond chance, as the plain values `{"jury": ...}`; nothing without votes.

    Votes count by the side they prefer. `alpha` is Krippendorff's, ordinal: a tie lies between the sides.
    """
    if not votes:
        return {}
    given = {name: [math.nan if v.get(name) is None else float(v[name] or 0.0) for v in votes] for name in votes[0]}
    members = {
        name: {"win_rate": _mean_known(values), "abstained": float(np.mean(np.isnan(values)))} for name, values in given.items()
    }
    return {"jury": {"members": members, **coefficients({name: sides(values) for name, values in given.items()})}}


def coefficients(ratings: Mapping[str, Sequence[float]], level: Level = "ordinal") -> dict[str, Any]:
    """Krippendorff's alpha, Fleiss' kappa and Cohen's for every two raters of the same items, as plain values."""
    found = agreement_of(ratings, level)
    plain = lambda c: {"value": None if math.isnan(c.value) else c.value, "ci95": c.ci95, "n": c.n}  # noqa: E731
    pairs = [{"a": a, "b": b, **plain(kappa)} for (a, b), kappa in found.pairs.items()]
    return {"alpha": plain(found.alpha), "fleiss": plain(found.fleiss), "cohen": pairs}


def sides(outcomes: Sequence[float]) -> list[float]:
    """1, 0 and -1 for outcomes that prefer the first answer, neither, and the second; NaN stays.

    >>> sides([1.0, 0.75, 0.5, 0.0, math.nan])
    [1.0, 1.0, 0.0, -1.0, nan]
    """
    return [x if math.isnan(x) else float(np.sign(round(x - 0.5, 12))) for x in outcomes]


def own_noise(votes: Votes) -> dict[str, Any]:
    """How much a judge that is asked repeatedly differs from itself, over the pairs that it could judge every time."""
    whole = [[x for x in v.values() if x is not None] for v in votes]
    table = np.array([row for row, v in zip(whole, votes, strict=True) if len(row) == len(v)], dtype=float).T
    if table.ndim < 2 or len(table) < 2:
        return {}
    noise = repeat_noise(table)
    return {"repeats": noise.repeats, "repeat_sd": noise.sd, "repeat_share": noise.share}


def _mean_known(values: Sequence[float]) -> float | None:
    known = [x for x in values if not math.isnan(x)]
    return float(np.mean(known)) if known else None


def merged(accounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One account of several: shares weighted by `n`, counts and costs summed; None where one of them is not known."""
    keys = list(dict.fromkeys(k for a in accounts for k in a))
    total: dict[str, Any] = {}
    for key in keys:
        rows = [a for a in accounts if key in a]
        if key in ("n", "attempts", "cost_usd"):
            values = [a[key] for a in rows]
            total[key] = None if None in values else sum(values)
        else:
            rows = [a for a in rows if a[key] is not None]
            weight = sum(a["n"] for a in rows)
            total[key] = sum(a[key] * a["n"] for a in rows) / weight if weight else None
    return total


def _winner(order: Order) -> int:
    return int(np.sign(round(order.outcome - 0.5, 12)))


def _first_wins(order: Order) -> float:
    return order.outcome if order.a_first else 1.0 - order.outcome


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0


def _spent(rows: Sequence[Verdict]) -> dict[str, Any]:
    attempts = sum(o.attempts for v in rows for o in v.orders)
    if not attempts:
        return {}
    costs = [o.cost for v in rows for o in v.orders if o.attempts]
    return {"attempts": attempts, "cost_usd": None if None in costs else math.fsum(c for c in costs if c is not None)}
