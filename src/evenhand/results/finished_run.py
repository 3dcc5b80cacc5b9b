"""A finished run seen from outside: which arms answered what, and what was found of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.data.jsonl import read_groups
from evenhand.errors import UserError
from evenhand.evaluation.policies import text_metrics
from evenhand.results.files import NAME, load, plain
from evenhand.results.record import ArmResult, Results
from evenhand.types import Group


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """`answers[arm][seed]`: groups with one answer each, over the same held-out prompts."""

    folder: Path
    baseline: str
    answers: Mapping[str, Mapping[str, list[Group]]]
    results: Results


def is_run(path: str | Path) -> bool:
    return (Path(path) / NAME).is_file()


def open_run(folder: str | Path) -> FinishedRun:
    """The run directory's results and generations.

    Raises: UserError where the folder has none of either, or its results name no baseline.
    """
    folder = Path(folder)
    results = load(folder)
    answers: dict[str, dict[str, list[Group]]] = {}
    for path in sorted(folder.glob("generations/*/seed-*/generations.jsonl")):
        answers.setdefault(path.parts[-3], {})[path.parts[-2].removeprefix("seed-")] = read_groups(path)
    if results.baseline is None or results.baseline not in answers:
        what = "generations" if not answers else "answers of its baseline" if results.baseline else "baseline"
        raise UserError(f"has no {what}", where=str(folder), fix="run `evenhand run` on it again; finished stages are reused")
    return FinishedRun(folder, results.baseline, {a: answers[a] for a in results.arms if a in answers}, results)


def evaluate_run(run: FinishedRun) -> dict[str, Any]:
    """Per arm: text metrics over all seeds beside its win rate."""
    arms = {}
    for arm, seeds in run.answers.items():
        found = plain(run.results.arms.get(arm, ArmResult()))
        known = {k: found[k] for k in ("win_rate", "ci95", "length_controlled", "kl", "gold", "reward", "invalid")}
        texts = text_metrics([g for seed in seeds.values() for g in seed])
        arms[arm] = {**{k: v for k, v in known.items() if v is not None}, "text": texts}
    return {"kind": "finished run", "name": run.results.name, "baseline": run.baseline, "arms": arms}


def leaderboard_lines(run: FinishedRun) -> list[dict[str, Any]]:
    """One flat object per arm, for a leaderboard kept as JSON lines."""
    found = run.results
    shared = {"baseline": run.baseline, "judge": found.judge and found.judge.name, "n_prompts": found.n_prompts}
    return [
        {
            "experiment": found.name, "arm": name, "method": arm.method, **shared, "seeds": list(found.seeds),
            "win_rate": arm.win_rate, "ci95": plain(arm.ci95),
            "length_controlled": arm.length_controlled and arm.length_controlled.win_rate,
            "length_controlled_form": arm.length_controlled and arm.length_controlled.form,
            "mean_length": arm.mean_length, "kl": arm.kl, "invalid": arm.invalid,
        }
        for name, arm in found.arms.items()
    ]  # fmt: skip
