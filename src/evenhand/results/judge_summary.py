"""What `results.json` says about the judge, and what it makes of verdicts besides win rates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evenhand.judges.agreement import merged
from evenhand.judges.config import LLM
from evenhand.stages.judge import JudgedBy, ScoredBy
from evenhand.stats.difficulty import prompt_difficulty
from evenhand.stats.length_contrasts import AtEqualLength, at_equal_length, the_baseline

Verdicts = Mapping[str, Sequence[Mapping[str, Any]]]
"""arm -> the verdicts of each seed."""
DRAWS = 500
OTHERS = 4
"""Policies besides the one under test that a prompt's difficulty can be told from."""


def judge_card(settings: Any, judged_by: JudgedBy, verdicts: Verdicts, baseline: str, tested: Mapping[str, Any] | None) -> dict:
    """Who judged, by what rules, how it behaved over all arms but the baseline, and how it did in its self-test.

    `right_or_wrong` stands in it where every score is 1 or 0: an arm's mean score is then the share of prompts it solves.
    """
    asked = judged_by.settings
    if isinstance(asked, ScoredBy):
        kind = str(asked.reward["kind"])
        reward = settings.reward  # as the experiment calls it, which says more than its outermost kind
        card: dict[str, Any] = {"name": reward if isinstance(reward, str) and reward != kind else asked.name, "kind": kind}
        card["tie"] = asked.tie
    else:
        card = {"name": asked.model if isinstance(asked, LLM) else asked.path, "kind": asked.kind}
        told = {"template_sha": judged_by.template_sha, **asdict(asked)}
        order = ("template", "template_sha", "verdict", "temperature", "revision")
        card |= {k: told[k] for k in order if told.get(k) not in (None, "")}
    golds = [g for seeds in verdicts.values() for v in seeds for g in v.get("gold", ())]
    if golds and all(g in (0.0, 1.0) for g in golds):
        card["right_or_wrong"] = True
    accounts = [v["account"] for arm, seeds in verdicts.items() if arm != baseline for v in seeds]
    behaved = merged(accounts) if accounts else {}
    card |= {k: v for k, v in behaved.items() if k not in ("mean_chars", "mean_chars_baseline", "longer")}
    return card | ({"self_test": dict(tested)} if tested is not None else {})


def equal_lengths(outcomes: Mapping[str, np.ndarray], chars: Mapping[str, np.ndarray], baseline: str) -> dict[str, AtEqualLength]:
    """Every arm at equal length, the baseline among them; both tables [seeds, prompts] by arm.

    Prompt difficulty comes from the other arms where there are at least four (form `lc_noreg`), else it is left out
    (`lc_minimal`).
    """
    seeds, prompts = outcomes[baseline].shape
    found = {baseline: the_baseline(seeds, prompts, DRAWS)}
    for arm in outcomes:
        if arm != baseline and prompts > 1:
            difficulty = _difficulty(outcomes, chars, arm, baseline)
            found[arm] = at_equal_length(outcomes[arm], chars[arm], chars[baseline], difficulty, draws=DRAWS)
    return found


def _difficulty(
    outcomes: Mapping[str, np.ndarray], chars: Mapping[str, np.ndarray], arm: str, baseline: str
) -> Sequence[float] | None:
    others = [a for a in outcomes if a not in (arm, baseline)]
    if len(others) < OTHERS:
        return None
    table = np.stack([outcomes[a].mean(axis=0) for a in others])
    longs = np.stack([chars[a].mean(axis=0) for a in others])
    return prompt_difficulty(table, longs, chars[baseline].mean(axis=0)).values


def shown_at_equal_length(found: AtEqualLength) -> dict[str, Any] | None:
    """An arm's length-controlled win rate; None where the data cannot support one (`length_controlled` says when)."""
    if found.overall is None or math.isnan(found.estimate):
        return None
    row = asdict(found.overall)
    return {"win_rate": row["estimate"], "ci95": list(row["ci95"])} | {k: row[k] for k in ("form", "note", "length_effect")}


def mean_or_none(values: Any) -> float | None:
    """The mean of what is known; None when nothing is: a judge of pairs has no scores.

    >>> mean_or_none([1.0, None, 3.0]), mean_or_none([None])
    (2.0, None)
    """
    known = np.array(values, dtype=float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if known.size else None
