"""What `results.json` says about reward models beyond accuracy, and about reward against distance over training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.evaluation.best_of_n import best_of_n_curve
from evenhand.stats.reward_model import agreement_by_length, calibration, length_bias, length_heatmap
from evenhand.types import Completion, Group, Prompt

Table = Sequence[Sequence[float | None]]


def best_of_n(scores: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """A curve per reward model from the scored samples; empty without a judge that scores."""
    if scores["gold"] is None:
        return {}
    gold = _numbers(scores["gold"])
    empty = Completion(content="")
    groups = [Group(prompt=Prompt(content=str(i)), completions=(empty,) * len(row)) for i, row in enumerate(gold)]
    proxies = {**{name: _numbers(t) for name, t in scores["proxies"].items()}, "the judge itself": gold}
    proxies["length"] = [[float(v) for v in row] for row in scores["length"]]
    try:
        return best_of_n_curve(groups, proxies, gold)
    except UserError:
        return {}  # no prompt is fully scored; the arms' own cards say how much is invalid


def length_leaning(scores: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Per reward model the within-prompt correlation of reward and length, and the heat map of it by mean length."""
    found = {}
    for name, table in scores["proxies"].items():
        kept = [i for i, row in enumerate(table) if None not in row and len(row) > 2]
        if not kept:
            continue
        bias = length_bias([[float(v) for v in table[i] if v is not None] for i in kept], [scores["length"][i] for i in kept])
        if not bias.correlations:
            continue
        counts, down, across = length_heatmap(bias, rows=20, columns=8)
        found[name] = {
            "mean_correlation": bias.mean_correlation, "share_above": bias.share_above, "slope": bias.slope,
            "prompts": len(bias.correlations), "skipped": bias.skipped + len(table) - len(kept),
            "heatmap": {"counts": counts.astype(int).tolist(), "correlation": down.tolist(), "length": across.tolist()},
        }  # fmt: skip
    return found


def on_pairs(scores: Mapping[str, Any], probes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Calibration, agreement by length and probes of one reward model."""
    margins = np.array(scores["chosen"]) - np.array(scores["rejected"])
    lengths = scores["chosen_chars"], scores["rejected_chars"]
    found: dict[str, Any] = {
        "calibration": [asdict(b) | {"high": b.high if math.isfinite(b.high) else None} for b in calibration(margins)],
        "by_length": {k: asdict(b) for k, b in agreement_by_length(scores["chosen"], scores["rejected"], *lengths).items()},
    }
    return found | ({"probes": dict(probes)} if probes else {})


def _numbers(table: Table) -> list[list[float]]:
    return [[math.nan if v is None else float(v) for v in row] for row in table]
