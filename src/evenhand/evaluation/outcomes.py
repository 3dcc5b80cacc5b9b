"""Statistics of outcome files made elsewhere: who won, by how much, and what this design could have seen.

A file has a row per comparison with columns `arm`, `prompt`, `outcome` in [0, 1] and, where there are any, `seed`, `sample`,
`cluster`, `length`, `baseline_length` and `difficulty`; `evaluation.outcome_files` reads it. Battles of many players: `battles`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from evenhand.errors import UserError, did_you_mean
from evenhand.evaluation.readers import Row
from evenhand.stats import (
    Difference,
    bca_interval,
    clustered_se,
    crossed_interval,
    equivalence_p,
    equivalent,
    length_controlled_l1,
    mcnemar,
    paired_difference,
    percentile_interval,
    permutation_test,
    resolved_by,
    sign_test,
    win_rate,
)
from evenhand.stats.crossed import imagined_variance
from evenhand.stats.family import Judged, judged
from evenhand.stats.intervals import Component, half_width, two_sided_p
from evenhand.stats.length_contrasts import at_equal_length
from evenhand.stats.twoway import MIXED_FROM, WinRate
from evenhand.types import Prompt

Estimator = Callable[[np.ndarray, np.ndarray], Difference]
_COLUMNS = ("outcome", "length", "baseline_length")


@dataclass(frozen=True, slots=True)
class Table:
    """One arm: `values[name]` [seeds, prompts] (NaN where a column is absent), and per prompt its cluster and difficulty."""

    seeds: tuple[str, ...]
    prompts: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    cluster: tuple[str, ...] | None
    difficulty: np.ndarray | None

    @property
    def outcome(self) -> np.ndarray:
        return self.values["outcome"]


def compare(
    rows: Sequence[Row],
    margin: float | None = None,
    *,
    contrasts: Sequence[tuple[str, str]] | None = None,
    difference: Estimator = paired_difference,
    baseline: str | None = None,
    full: bool = False,
) -> dict[str, Any]:
    """Win rates and paired contrasts with Holm's correction, and the smallest difference each design could have found.

    Arms must share prompts, and seeds unless `difference` is `unmatched_difference`: pairs make small differences visible.
    `contrasts` are the pre-declared ones (default: every pair); Holm's family is exactly these. `margin`: also whether two arms
    are equivalent, their 90 % interval inside it. `full` adds bootstrap intervals and AlpacaEval's form of length control.
    Right/wrong outcomes of one seed get McNemar's test; prompts with clusters get clustered standard errors. Values outside
    [0, 1] are compared as means. `baseline`: an arm that all outcomes are against, 1/2 itself; contrasts with it come first
    and are a family of their own.
    """
    tables = tabulate(rows)
    check_alike(tables, seeds=difference is paired_difference)
    arms = {a: rate(t, full=full) for a, t in tables.items() if a != baseline}
    every = [*((a, baseline) for a in arms if baseline is not None), *combinations(arms, 2)]
    chosen = every if contrasts is None else [_known(pair, tables) for pair in contrasts]
    return {"arms": arms, "contrasts": _contrasts(tables, chosen, margin, difference, full, baseline)}


def tabulate(rows: Sequence[Row]) -> dict[str, Table]:
    """A table per arm. Samples of one cell (column `sample`) are averaged; a cell without an outcome is an error."""
    by_arm: dict[str, list[Row]] = {}
    for row in rows:
        by_arm.setdefault(str(row["arm"]), []).append(row)
    return {arm: _table(own, arm) for arm, own in by_arm.items()}


def _table(rows: Sequence[Row], arm: str) -> Table:
    seeds = tuple(sorted({_seed(r) for r in rows}))
    prompts = tuple(sorted({str(r["prompt"]) for r in rows}))
    place = {(s, p): (i, j) for i, s in enumerate(seeds) for j, p in enumerate(prompts)}
    cells: dict[tuple[int, int], dict[str, Row]] = {}
    for r in rows:
        cell = cells.setdefault(place[_seed(r), str(r["prompt"])], {})
        sample = str(r.get("sample", ""))
        if sample in cell:
            before = f" (first at {cell[sample]['where']})" if "where" in r else ""
            raise UserError(
                f"prompt {r['prompt']} of arm '{arm}' occurs twice{before}", where=str(r.get("where", f"arm {arm}")),
                fix="give a `seed` column, or `sample` for several answers to one prompt",
            )  # fmt: skip
        cell[sample] = r
    if missing := len(place) - len(cells):
        at = next(key for key, spot in place.items() if spot not in cells)
        raise UserError(
            f"{missing} of {len(place)} cells (seed x prompt) have no outcome (first: seed {at[0]}, prompt {at[1]})",
            where=f"arm {arm}", why="leaving them out would favour whoever failed on hard prompts",
            fix="judge them, or enter 0.5 for invalid ones",
        )  # fmt: skip
    values = {name: np.full((len(seeds), len(prompts)), np.nan) for name in _COLUMNS}
    for at_cell, cell in cells.items():
        for name in _COLUMNS:
            values[name][at_cell] = np.mean([_value(r, name) for r in cell.values()])
    hard = _per_prompt(rows, prompts, "difficulty")
    clusters = _per_prompt(rows, prompts, "cluster")
    return Table(
        seeds, prompts, values,
        cluster=None if clusters is None else tuple(str(c) for c in clusters),
        difficulty=None if hard is None else np.array(hard, dtype=float),
    )  # fmt: skip


def _seed(row: Row) -> str:
    return str(row.get("seed", "0"))


def _value(row: Row, name: str) -> float:
    value = row.get(name)
    return math.nan if value in (None, "") else float(value)


def _per_prompt(rows: Sequence[Row], prompts: Sequence[str], name: str) -> list[Any] | None:
    """A column that belongs to prompts, in their order; None where the file has none."""
    found: dict[str, Any] = {}
    for r in rows:
        value = r.get(name)
        if value in (None, ""):
            continue
        if found.setdefault(str(r["prompt"]), value) != value:
            raise UserError(f"prompt {r['prompt']} has two values of '{name}'", where=str(r.get("where", name)))
    if not found:
        return None
    if absent := [p for p in prompts if p not in found]:
        raise UserError(f"{len(absent)} prompts have no '{name}' (first: {absent[0]})", where=name, fix="give it for all or none")
    return [found[p] for p in prompts]


def check_alike(tables: Mapping[str, Table], *, seeds: bool = True) -> None:
    """UserError unless all arms answered the same prompts, with the same seeds where they are matched."""
    first = next(iter(tables))
    for name, table in tables.items():
        for what in ("seeds", "prompts") if seeds else ("prompts",):
            ours, theirs = getattr(table, what), getattr(tables[first], what)
            if ours != theirs:
                odd = min(set(ours) ^ set(theirs))
                unmatched = ", or use `evenhand stats compare --unmatched`" if what == "seeds" else ""
                fix = f"compare arms on the same cells{unmatched}"
                raise UserError(
                    f"'{name}' and '{first}' have different {what} (e.g. {what[:-1]} {odd})", where="outcomes", fix=fix
                )


def rate(table: Table, *, full: bool = False) -> dict[str, Any]:
    """One arm: its win rate (or mean, where values leave [0, 1]) with every interval that the columns allow.

    `ci95` is about the method (new seeds and prompts), `ci95_prompts_only` about these checkpoints; Wilson's shape for
    outcomes. `clustered`: new topics instead of new prompts. Lengths give the length-controlled win rate, in our form and in
    AlpacaEval's (`alpaca_eval_form`).
    """
    y = table.outcome
    by_prompt = y.mean(axis=0)
    if y.min() >= 0.0 and y.max() <= 1.0:
        rate = win_rate(y)
        row = {"win_rate": rate.estimate, **_told(rate, "wins", "ties", "losses")}
        if rate.mixed is not None:
            fit = {"win_rate": rate.mixed.estimate, "ci95": rate.mixed.interval(), "seed_sd": rate.mixed.seed_sd}
            row |= {"mixed_model": {**fit, "shown": rate.k >= MIXED_FROM}, "ci95_two_way": rate.ci95_two_way}
    else:
        zero = paired_difference(y, np.zeros_like(y))
        row = {"mean": zero.estimate, **_told(zero)}
    if full and np.ptp(by_prompt) > 0.0:  # equal values have nothing to resample
        row["ci95_bootstrap"], row["ci95_bca"] = percentile_interval(by_prompt), bca_interval(by_prompt)
        if len(y) > 1:
            row["ci95_crossed_bootstrap"] = crossed_interval(y)
    if table.cluster is not None:
        row["clustered"] = clustered(by_prompt, table.cluster)
    lengths = table.values["length"], table.values["baseline_length"]
    if "win_rate" in row and not any(np.isnan(v).any() for v in lengths):
        row["length_controlled"] = _controlled(y, *lengths, table.difficulty, full)
    return row


def _told(found: WinRate | Difference, *counts: str) -> dict[str, Any]:
    keys = ("ci95", "ci95_prompts_only", "per_seed", *counts, "standard_error", "n", "k", "note")
    return {key: getattr(found, key) for key in keys}


def question_of(prompt: Prompt) -> str:
    """The question that a prompt is a turn of; itself, where it is none."""
    return str(prompt.meta.get("cluster") or prompt.id)


def by_question(values: ArrayLike, questions: Sequence[str]) -> np.ndarray:
    """Means over each question's turns, the questions in the order in which they come.

    >>> by_question([1.0, 0.0, 1.0], ["q", "q", "r"]).tolist()
    [0.5, 1.0]
    """
    places = {question: place for place, question in enumerate(dict.fromkeys(questions))}
    own = np.array([places[question] for question in questions])
    return np.asarray(np.bincount(own, weights=np.asarray(values, dtype=float)) / np.bincount(own))


ROUNDING = 1e-9
"""Standard errors below this share of the largest value are those of sums that were rounded."""


def clustered(values: np.ndarray, clusters: Sequence[str]) -> dict[str, Any]:
    """Mean of values per prompt whose prompts come in clusters: clustered standard error, t interval with G - 1 df, p of 0."""
    se, groups, mean = clustered_se(values, clusters), len(set(clusters)), float(values.mean())
    reach = float(np.abs(values).max()) or 1.0
    alike = se < ROUNDING * reach  # clusters that all agree are not certain to
    part = [Component(imagined_variance(groups, reach) if alike else se**2, groups - 1)]
    half = half_width(part)
    p = two_sided_p(mean, part)
    return {"standard_error": se, "ci95": (mean - half, mean + half), "p": p, "clusters": groups}


def _controlled(y: np.ndarray, length: np.ndarray, baseline: np.ndarray, hard: np.ndarray | None, both: bool) -> dict[str, Any]:
    ours = at_equal_length(y, length, baseline, hard, draws=1000).overall
    assert ours is not None  # only the baseline itself has no fit
    row: dict[str, Any] = {
        "win_rate": ours.estimate, "ci95": ours.ci95, "form": ours.form, "note": ours.note, "length_effect": ours.length_effect,
        "scope": ours.scope,
    }  # fmt: skip
    if both:
        theirs = length_controlled_l1(y, length, baseline, hard)
        row["alpaca_eval_form"] = {"win_rate": theirs.estimate, "form": theirs.form, "note": theirs.note}
    return row


def _known(pair: tuple[str, str], tables: Mapping[str, Table]) -> tuple[str, str]:
    for name in pair:
        if name not in tables:
            raise UserError(f"no arm '{name}'", where="contrast", fix=did_you_mean(name, tables))
    return pair


def _contrasts(
    tables: Mapping[str, Table], pairs: Sequence[tuple[str, str]], margin: float | None, difference: Estimator, full: bool,
    baseline: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    found = [difference(tables[a].outcome, tables[b].outcome) for a, b in pairs]
    rows = []
    for (a, b), d, j in zip(pairs, found, judged(found, [baseline in pair for pair in pairs]), strict=True):
        row = {"a": a, "b": b, **_contrast(d, j), **_tests(tables[a], tables[b], full)}
        if margin is not None:
            row |= {"equivalent": equivalent(d, margin), "margin": margin, "p_equivalence": equivalence_p(d, margin)}
            row["ci90"] = d.interval(0.90)
        rows.append(row)
    return rows


def _contrast(d: Difference, j: Judged) -> dict[str, Any]:
    return {
        "difference": d.estimate, "ci95": d.ci95, "ci95_prompts_only": d.ci95_prompts_only,
        "ci95_simultaneous": j.ci95_simultaneous, "per_seed": d.per_seed, "p": d.p, "p_holm": j.p_holm, "contrasts": j.contrasts,
        "minimum_detectable_difference": resolved_by(d, contrasts=j.contrasts), "n": d.n, "k": d.k, "note": d.note,
        "verdict": j.verdict,
    }  # fmt: skip


def _tests(a: Table, b: Table, full: bool) -> dict[str, Any]:
    """Tests over prompts, of the means over seeds: they speak of these checkpoints."""
    gaps = a.outcome.mean(axis=0) - b.outcome.mean(axis=0)
    signs = sign_test(gaps)
    row: dict[str, Any] = {
        "p_permutation": permutation_test(gaps), "p_sign": signs.p,
        "signs": {"positive": signs.positive, "negative": signs.negative, "zero": signs.zero},
    }  # fmt: skip
    if len(a.outcome) == len(b.outcome) == 1 and np.isin([a.outcome, b.outcome], (0.0, 1.0)).all():
        row["mcnemar"] = asdict(mcnemar(a.outcome[0], b.outcome[0]))
    if a.cluster is not None and a.cluster == b.cluster:
        row["clustered"] = clustered(gaps, a.cluster)
    if full and np.ptp(gaps) > 0.0:
        row["ci95_bootstrap"] = percentile_interval(gaps)
        if a.seeds == b.seeds and len(a.seeds) > 1:
            row["ci95_crossed_bootstrap"] = crossed_interval(a.outcome - b.outcome)
    return row
