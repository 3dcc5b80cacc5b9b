"""Curves: best-of-n from scored samples, reward against KL over training, checkpoints by a validation split, length grids."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.protocols import Engine, Reward
from evenhand.stats import best_of_n, t_interval
from evenhand.types import Group, Prompt, Sampling

Point = Mapping[str, float]


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


def peak(points: Sequence[Point], key: str = "gold") -> Point | None:
    """The point where `key` is highest: beyond it more optimisation does harm. None when nothing has it."""
    known = [p for p in points if p.get(key) is not None]
    return max(known, key=lambda p: p[key]) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """The checkpoint chosen on validation prompts, and what it is worth on evaluation prompts that chose nothing."""

    step: int
    validation: float
    evaluation: float
    best_by_evaluation: int
    optimism: float
    """What choosing on the evaluation prompts themselves would have added to the reported number."""


def select_checkpoint(
    validation: Mapping[int, Sequence[float]], evaluation: Mapping[int, Sequence[float]],
    validation_prompts: Sequence[str], evaluation_prompts: Sequence[str],
) -> Selected:  # fmt: skip
    """Highest mean score on the validation prompts (the earliest of equals); refuses splits that share a prompt.

    Scores per checkpoint (step -> one per prompt). Choosing on the prompts that are reported makes the result too good.
    """
    shared = set(validation_prompts) & set(evaluation_prompts)
    if shared:
        raise UserError(
            f"{len(shared)} prompts are in both splits (first: {min(shared)})", where="checkpoint selection",
            why="a checkpoint chosen on the prompts it is judged by looks better than it is", fix="make the splits disjoint",
        )  # fmt: skip
    if not validation or validation.keys() != evaluation.keys():
        raise UserError("the splits have different checkpoints", where="checkpoint selection")
    by_validation = {step: float(np.mean(v)) for step, v in validation.items()}
    by_evaluation = {step: float(np.mean(v)) for step, v in evaluation.items()}
    step = min(by_validation, key=lambda s: (-by_validation[s], s))
    best = min(by_evaluation, key=lambda s: (-by_evaluation[s], s))
    return Selected(
        step=step, validation=by_validation[step], evaluation=by_evaluation[step], best_by_evaluation=best,
        optimism=by_evaluation[best] - by_evaluation[step],
    )  # fmt: skip


def measure_lengths(
    engines: Mapping[int, Engine], prompts: Sequence[Prompt], limits: Sequence[int], reward: Reward, *, temperature: float = 1.0
) -> dict[tuple[int, int], list[float]]:
    """Scores by (training limit, inference limit) for `length_grid`: the same prompts, sampled under every limit.

    `engines` gives the sampler of the policy trained under each limit, in tokens.
    """
    cells = {}
    for trained, engine in engines.items():
        for limit in limits:
            groups = engine.generate(prompts, 1, Sampling(temperature=temperature, max_tokens=limit))
            cells[trained, limit] = [s.values[0] for s in reward(groups)]
    return cells


def length_grid(cells: Mapping[tuple[int, int], Sequence[float]]) -> dict[str, Any]:
    """Score by (training limit, inference limit) in tokens: means [training, inference], and the difference from the diagonal.

    A policy trained with short answers may do worse when it may write longer ones, and the other way round; a comparison at
    one inference length alone would call that a difference of methods. Cells that were not run are None.
    """
    trained, allowed = sorted({t for t, _ in cells}), sorted({a for _, a in cells})
    means = [[float(np.mean(cells[t, a])) if (t, a) in cells else None for a in allowed] for t in trained]
    best = {t: max((a for a in allowed if (t, a) in cells), key=lambda a: float(np.mean(cells[t, a]))) for t in trained}
    return {"training": trained, "inference": allowed, "mean": means, "best_inference": best}
