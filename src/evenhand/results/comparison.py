"""Arms against each other: a row per arm, a contrast per pair, on the seeds that both have. See `docs/statistics.md`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from evenhand.evaluation.policies import text_metrics
from evenhand.results.judge_summary import equal_lengths, mean_or_none, shown_at_equal_length
from evenhand.results.run_artifacts import Finished
from evenhand.stats.length_contrasts import AtEqualLength, LengthControlledDifference, length_controlled_difference
from evenhand.stats.planning import resolved_by
from evenhand.stats.tests import holm_by_family, verdict, verdict_of
from evenhand.stats.twoway import Difference, paired_difference, win_rate
from evenhand.types import Group

COUNTS = ("tokens_generated", "tokens_trained", "reward_calls", "flops")
UNRESOLVED = "inconclusive"


Fits = dict[tuple[int, ...], Mapping[str, AtEqualLength]]
"""Arms at equal length by the seeds that they were fitted on; filled as needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """Arm `a` minus arm `b` on the seeds of both, as they are and at equal length (None where that cannot be had)."""

    a: str
    b: str
    seeds: tuple[int, ...]
    raw: Difference
    controlled: LengthControlledDifference | None


def arm_rows(done: Finished, fits: Fits) -> dict[str, dict[str, Any]]:
    """A row per arm of the experiment; an arm without a verdict keeps its place, with a null win rate."""
    rows = {arm: arm_row(done, arm) if done.seeds(arm) else _lost(done, arm) for arm in done.plan.arms}
    for seeds in dict.fromkeys(done.seeds(a) for a in done.arms):  # of arms that lost a seed, by the seeds that are left
        for arm, found in even(done, seeds, fits).items():
            if arm != done.baseline and done.seeds(arm) == seeds:
                rows[arm]["length_controlled"] = shown_at_equal_length(found)
    return rows


def even(done: Finished, seeds: tuple[int, ...], fits: Fits) -> Mapping[str, AtEqualLength]:
    """At equal length, every arm that has all of `seeds`; nothing without the baseline."""
    if seeds not in fits:
        fits[seeds] = _even(done, seeds)
    return fits[seeds]


def _even(done: Finished, seeds: tuple[int, ...]) -> Mapping[str, AtEqualLength]:
    arms = [a for a in done.arms if set(seeds) <= set(done.seeds(a))]
    if done.baseline not in arms:
        return {}
    return equal_lengths(
        {a: done.table(a, "outcome", seeds) for a in arms}, {a: done.chars(a, seeds) for a in arms}, done.baseline
    )


def arm_row(done: Finished, arm: str) -> dict[str, Any]:
    """Everything `results.json` says of one arm; `per_seed` follows the comparison's seeds, null where this arm has none."""
    seeds = done.seeds(arm)
    verdicts, measured = [done.verdicts[arm][s] for s in seeds], [done.measured[arm][s] for s in seeds]
    mean = lambda field: float(np.mean([m[field] for m in measured]))  # noqa: E731
    proxies = {name: mean_or_none([v["proxies"][name] for v in verdicts]) for name in verdicts[0]["proxies"]}
    row = {
        "method": done.plan.experiment.arm(arm).method,
        "seeds": list(seeds),
        "gold": mean_or_none([v["gold"] for v in verdicts]),
        "gold_per_seed": done.by_seed({s: mean_or_none(done.verdicts[arm][s]["gold"]) for s in seeds}),
        "invalid": float(np.mean([v["account"]["invalid"] for v in verdicts])),
        "mean_length": mean("length"),
        "mean_chars": mean("chars"),
        "truncated": mean("truncated"),
        "kl": mean("kl"),
        **told_by_text([done.generations(arm, s) for s in seeds]),
        "reward": next(iter(proxies.values()), None),
        "proxies": proxies,
        "ledger": ledger(done, arm, seeds),
        "judge_cost_usd": _sum([v["account"].get("cost_usd") for v in verdicts]),
    }
    if arm == done.baseline:
        even = done.by_seed(dict.fromkeys(seeds, 0.5))
        return {"win_rate": 0.5, "ci95": None, "ci95_prompts_only": None, "per_seed": even, "ties": 1.0, **row}
    won = win_rate(done.table(arm, "outcome", seeds))
    return {
        "win_rate": won.estimate,
        "ci95": list(won.ci95),
        "ci95_prompts_only": list(won.ci95_prompts_only),
        "per_seed": done.by_seed(dict(zip(seeds, won.per_seed, strict=True))),
        "ties": won.ties,
        "note": won.note,
        **row,
    }


def _lost(done: Finished, arm: str) -> dict[str, Any]:
    method = done.plan.experiment.arm(arm).method
    return {"win_rate": None, "ci95": None, "per_seed": done.by_seed({}), "seeds": [], "method": method}


def told_by_text(seeds: Sequence[Sequence[Group]]) -> dict[str, Any]:
    """Text metrics of an arm's answers. `self_overlap` is between the answers of different seeds to one prompt."""
    told = text_metrics([g for groups in seeds for g in groups])
    together = [
        Group(prompt=same[0].prompt, completions=tuple(c for g in same for c in g.completions))
        for same in zip(*seeds, strict=True)
    ]
    told |= {k: v for k, v in text_metrics(together).items() if k == "self_overlap"}
    names = ("distinct_1", "distinct_2", "repetition", "self_overlap", "entropy", "empty")
    return {name: told.get(name) for name in names} | {"refusal": told.get("refusals", {}).get("all", {}).get("rate")}


def ledger(done: Finished, arm: str, seeds: Sequence[int]) -> dict[str, float]:
    """Mean counts over seeds; seconds stay in the arms' own ledgers, since they differ from run to run."""
    rows = [done.load(done.plan.arms[arm][s], "ledger.json") for s in seeds] if done.plan.trained(arm) else []
    return {name: float(np.mean([r[name] for r in rows])) if rows else 0.0 for name in COUNTS}


def contrasts(done: Finished, fits: Fits) -> list[Contrast]:
    """Every arm against every other, those with the baseline first, by the paired difference of their win rates over it."""
    arms = [a for a in done.plan.arms if done.seeds(a)]
    pairs = sorted(combinations(arms, 2), key=lambda p: done.baseline not in p)
    found = []
    for first, second in pairs:
        a, b = (second, first) if first == done.baseline else (first, second)
        seeds = tuple(s for s in done.seeds(a) if s in done.seeds(b))
        if not seeds:
            continue  # never trained under one seed: nothing pairs them
        fitted = even(done, seeds, fits)
        controlled = length_controlled_difference(fitted[a], fitted[b]) if a in fitted and b in fitted else None
        raw = paired_difference(done.table(a, "outcome", seeds), done.table(b, "outcome", seeds))
        found.append(Contrast(a=a, b=b, seeds=seeds, raw=raw, controlled=controlled))
    return found


def contrast_rows(found: Sequence[Contrast], baseline: str) -> list[dict[str, Any]]:
    """Contrasts with Holm's correction; "better" needs the corrected p as well as the interval.

    Those with the baseline, which the experiment declares, are one family; what is left, a search among the arms, is another.
    """
    declared = [baseline in (c.a, c.b) for c in found]
    adjusted = holm_by_family([c.raw.p for c in found], declared)
    known = [(c.controlled.p, family) for c, family in zip(found, declared, strict=True) if c.controlled is not None]
    at_equal_length = iter(holm_by_family([p for p, _ in known], [family for _, family in known]))
    return [
        {
            "a": c.a,
            "b": c.b,
            "difference": c.raw.estimate,
            "ci95": list(c.raw.ci95),
            "per_seed": list(c.raw.per_seed),
            "seeds": list(c.seeds),
            "p": c.raw.p,
            "p_holm": p,
            "minimum_detectable_difference": resolved_by(c.raw),
            "verdict": verdict(c.raw) if p < 0.05 else UNRESOLVED,
            "length_controlled": _controlled_row(c.controlled, next(at_equal_length)) if c.controlled is not None else None,
        }
        for c, p in zip(found, adjusted, strict=True)
    ]


def _controlled_row(d: LengthControlledDifference, p: float) -> dict[str, Any]:
    word = verdict_of(d.ci95, d.per_seed) if p < 0.05 else UNRESOLVED
    return {"difference": d.estimate, "ci95": list(d.ci95), "per_seed": list(d.per_seed), "p_holm": p, "verdict": word}


def resolution(found: Sequence[Contrast]) -> dict[str, Any]:
    """The differences that this design would usually have found: for the noisiest pair, the middle one and the steadiest."""
    reach = sorted(r for r in (resolved_by(c.raw) for c in found) if math.isfinite(r))
    if not reach:
        return {"minimum_detectable_difference": None}
    return {"minimum_detectable_difference": reach[-1], "median": float(np.median(reach)), "least": reach[0]}


def _sum(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return math.fsum(known) if known else None
