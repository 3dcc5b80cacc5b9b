"""What `results.json` says about the judge, and what it makes of verdicts besides win rates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evenhand.judges.agreement import jury_agreement, merged, own_noise
from evenhand.judges.config import LLM, Human, OwnJudge
from evenhand.results.files import carried, parsed
from evenhand.results.paths import without_folders
from evenhand.results.record import ControlledWinRate
from evenhand.results.record_judge import JudgeSummary
from evenhand.stages.judge import JudgedBy, JuryRule, ScoredBy
from evenhand.stats.difficulty import prompt_difficulty
from evenhand.stats.length_contrasts import AtEqualLength, at_equal_length, the_baseline

Verdicts = Mapping[str, Sequence[Mapping[str, Any]]]
"""arm -> the verdicts of each seed."""
DRAWS = 500
OTHERS = 4
"""Policies besides the one under test that a prompt's difficulty can be told from."""


def judge_summary(settings: Any, judged_by: JudgedBy, verdicts: Verdicts, baseline: str) -> JudgeSummary:
    """Who judged, by what rules, and how it behaved over all arms but the baseline."""
    if judged_by.members:
        named: dict[str, Any] = {"name": "jury of " + ", ".join(judged_by.members), "kind": "jury"}
        rules: dict[str, Any] = {"by": settings.by}
    else:
        named = _named(settings, judged_by)
        rules = named.pop("rules")
    rows = [v for arm, seeds in verdicts.items() if arm != baseline for v in seeds]
    golds = [g for seeds in verdicts.values() for v in seeds for g in v.get("gold", ())]
    behaved = merged([v["account"] for v in rows]) if rows else {}
    named["right_or_wrong"] = bool(golds) and all(g in (0.0, 1.0) for g in golds)
    votes = [vote for v in rows for vote in v.get("votes", ()) if vote]
    several = judged_by.members or isinstance(judged_by.settings, Human)
    told = jury_agreement(votes) if several else own_noise(votes)
    return parsed(JudgeSummary, {**behaved, **rules, **named, **told})


def _named(settings: Any, judged_by: JudgedBy) -> dict[str, Any]:
    """A judge's name, kind and rules; its name is as the experiment calls it."""
    asked = judged_by.settings
    assert not isinstance(asked, JuryRule)
    if isinstance(asked, ScoredBy):
        kind = str(asked.reward["kind"])
        reward = settings.reward  # as the experiment calls it, which says more than its outermost kind
        name, rules = reward if isinstance(reward, str) and reward != kind else asked.name, {"tie": asked.tie}
    elif isinstance(asked, OwnJudge):
        name, kind, rules = asked.judge, "own", {}
    elif isinstance(asked, Human):
        name, kind, rules = "people", asked.kind, {}
    else:
        name, kind = asked.model if isinstance(asked, LLM) else asked.path, asked.kind
        given = {"template_sha": judged_by.template_sha, **asdict(asked)}
        words = ("template", "template_sha", "verdict", "temperature", "revision")
        rules = {k: given[k] for k in words if given.get(k) not in (None, "")}
    return {"name": without_folders(str(name)), "kind": kind, "rules": rules}


def equal_lengths(outcomes: Mapping[str, np.ndarray], chars: Mapping[str, np.ndarray], baseline: str) -> dict[str, AtEqualLength]:
    """Every arm at equal length, the baseline among them; both tables [seeds, prompts] by arm.

    Prompt difficulty comes from the other arms where there are at least four (form `lc_noreg`), else the effect of length is held
    near none (`lc_shrunk`).
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


def controlled_win_rate(found: AtEqualLength) -> ControlledWinRate | None:
    """An arm's length-controlled win rate with its one interval; no win rate but the reason where the data allow none."""
    o = found.overall
    if o is None:
        return None
    if math.isnan(found.estimate):
        return ControlledWinRate(form=o.form, note=o.note, scope=o.scope)
    return carried(ControlledWinRate, o, win_rate=o.estimate)


def mean_or_none(values: Any) -> float | None:
    """The mean of what is known; None when nothing is: a judge of pairs has no scores.

    >>> mean_or_none([1.0, None, 3.0]), mean_or_none([None])
    (2.0, None)
    """
    known = np.array(values, dtype=float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if known.size else None
