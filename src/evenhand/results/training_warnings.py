"""Warnings of the training monitor, and what ended a stage early: from every finished fit's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evenhand.results.files import carried, parsed, read_json, read_jsonl
from evenhand.results.record import ArmResult
from evenhand.results.record_parts import EarlyEnd, Fired, TrainingWarning
from evenhand.results.run_artifacts import RunArtifacts
from evenhand.stages.training_run import FitSpec
from evenhand.train.monitor import STOPPED, WARNINGS, Remark, replay

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"


def of_arm(arm: str, done: RunArtifacts) -> dict[str, Any]:
    """The fields of an `ArmResult` about its training: `warnings`, and where it was `stopped`."""
    fits = {str(seed): node for seed, node in finished_fits(arm, done).items()}
    ends = {seed: done.store.path(done.plan[node].key) / STOPPED for seed, node in fits.items()}
    stopped = {seed: parsed(EarlyEnd, read_json(path)) for seed, path in ends.items() if path.exists()}
    return {"warnings": by_rule({seed: _remarks(done, node) for seed, node in fits.items()}), "stopped": stopped}


def of_stages(done: RunArtifacts) -> dict[str, tuple[TrainingWarning, ...]]:
    """Node -> warnings, of finished fits that are no arm's own: base, SFT, reward models."""
    arms = {node for arm in done.plan.arms for node in finished_fits(arm, done).values()}
    others = [n.name for n in done.plan.nodes if n.kind == "fit" and n.name not in arms and done.has(n.name)]
    found = {name: by_rule({str(done.plan[name].seed): _remarks(done, name)}) for name in others}
    return {name: warnings for name, warnings in found.items() if warnings}


def early_ends(arms: Mapping[str, ArmResult]) -> list[str]:
    """Arms that trained for fewer steps than planned, in words: their budgets are not those of the others."""
    return [
        f"training of {arm}, seed {seed}, stopped at step {end.step} of {end.of} because {end.sentence}"
        for arm, result in arms.items()
        for seed, end in result.stopped.items()
    ]


def finished_fits(arm: str, done: RunArtifacts) -> dict[int, str]:
    """Seed -> the node that trained the arm, if it finished; nothing for an arm that is another stage's model."""
    seeds = done.plan.arms[arm] if done.plan.trained(arm) else {}
    return {seed: node for seed, node in seeds.items() if done.plan[node].kind == "fit" and done.has(node)}


def metrics(arm: str, done: RunArtifacts) -> list[dict[str, Any]]:
    """What an arm recorded, every step of every finished seed."""
    files = [done.store.path(done.plan[node].key) / METRICS for node in finished_fits(arm, done).values()]
    return [row for path in files if path.exists() for row in read_jsonl(path)]


def _remarks(done: RunArtifacts, name: str) -> list[Remark]:
    node = done.plan[name]
    assert isinstance(node.spec, FitSpec)
    return remarks(done.store.path(node.key), node.spec)


def remarks(folder: Path, spec: FitSpec) -> list[Remark]:
    """The stage's own warnings; of one that was trained before stages had any, what its metrics say now."""
    if (folder / WARNINGS).exists():
        return parsed(list[Remark], read_json(folder / WARNINGS))
    from evenhand.stages.monitoring import silent  # torch, only where the stage itself has none

    steps, samples = (read_jsonl(path) if path.exists() else [] for path in (folder / METRICS, folder / SAMPLES))
    return replay(steps, samples, silent=silent(spec.build()))


def by_rule(seeds: Mapping[str, Sequence[Remark]]) -> tuple[TrainingWarning, ...]:
    """One warning per rule, in the words of the first seed, with the step and value of each seed it fired for.

    >>> words = dict.fromkeys(("sentence", "measures", "means", "normal", "fix"), "...")
    >>> found = by_rule({"0": [Remark(rule="kl", step=3, value=51.0, limit=50.0, **words)], "1": []})
    >>> found[0].rule, found[0].seeds
    ('kl', {'0': Fired(step=3, value=51.0)})
    """
    rules: dict[str, TrainingWarning] = {}
    for seed, found in seeds.items():
        for r in found:
            known = rules.get(r.rule) or carried(TrainingWarning, r)
            rules[r.rule] = replace(known, seeds={**known.seeds, seed: Fired(step=r.step, value=r.value)})
    return tuple(rules.values())
