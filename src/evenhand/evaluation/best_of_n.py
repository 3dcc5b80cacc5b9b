"""Curves: best-of-n from scored samples, reward against KL over training, length grids."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.stats import best_of_n, t_interval
from evenhand.types import Group


def best_of_n_curve(
    groups: Sequence[Group], proxies: Mapping[str, Sequence[Sequence[float]]], gold: Sequence[Sequence[float]] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """For every proxy the expected gold score of its favourite of n samples, n = 1..m, with intervals over prompts.

    `gold` defaults to the groups' own scores. Prompts with an unscored answer are left out and counted (`left_out`); all
    prompts must have the same number m of answers.
    """
    table = [list(g.scores) for g in groups] if gold is None else [list(row) for row in gold]
    kept = [i for i, row in enumerate(table) if not any(math.isnan(v) for v in row) and not _unscored(proxies, i)]
    if len({len(table[i]) for i in kept}) != 1:
        raise UserError("prompts have different numbers of answers, or none is fully scored", where="best-of-n")
    golds = np.array([table[i] for i in kept])
    curves = {}
    for name, rows in proxies.items():
        points = [asdict(p) for p in best_of_n(np.array([list(rows[i]) for i in kept]), golds)]
        curves[name] = [{**p, "ci95": list(p["ci95"]), "prompts": len(kept), "left_out": len(table) - len(kept)} for p in points]
    return curves


def _unscored(proxies: Mapping[str, Sequence[Sequence[float]]], i: int) -> bool:
    return any(math.isnan(v) for rows in proxies.values() for v in rows[i])


def over_optimisation(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Training-time samples (`step`, `kl`, `reward`, `gold`; any may be missing) as one point per step, with n and intervals.

    Where reward climbs and gold falls, the policy exploits the reward (Gao et al. 2023). `kl` in nats per sequence.
    """
    steps: dict[int, list[Mapping[str, Any]]] = {}
    for row in samples:
        steps.setdefault(int(row["step"]), []).append(row)
    points = []
    for step in sorted(steps):
        point: dict[str, Any] = {"step": step, "n": len(steps[step])}
        for name in ("kl", "reward", "gold"):
            values = np.array([r[name] for r in steps[step] if r.get(name) is not None], dtype=float)
            values = values[np.isfinite(values)]
            if values.size:
                point[name] = float(values.mean())
                point[f"{name}_ci95"] = list(t_interval(values)) if values.size > 1 else None
        points.append(point)
    return points


def length_grid(cells: Mapping[tuple[int, int], Sequence[float]]) -> dict[str, Any]:
    """Score by (training limit, inference limit) in tokens: means [training, inference], and the difference from the diagonal.

    A policy trained with short answers may do worse when it may write longer ones, and the other way round; a comparison at
    one inference length alone would call that a difference of methods. Cells that were not run are None.
    """
    trained, allowed = sorted({t for t, _ in cells}), sorted({a for _, a in cells})
    means = [[float(np.mean(cells[t, a])) if (t, a) in cells else None for a in allowed] for t in trained]
    best = {t: max((a for a in allowed if (t, a) in cells), key=lambda a: float(np.mean(cells[t, a]))) for t in trained}
    return {"training": trained, "inference": allowed, "mean": means, "best_inference": best}
