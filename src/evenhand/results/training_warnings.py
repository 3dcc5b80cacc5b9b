"""What was said while stages trained, and what ended one early: for `results.json`, from every finished fit's own files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evenhand.results.run_artifacts import Finished
from evenhand.stages.training_run import FitSpec
from evenhand.train.monitor import STOPPED, WARNINGS, replay

WORDS = ("limit", "sentence", "measures", "means", "normal", "fix")


def with_remarks(rows: Mapping[str, dict[str, Any]], done: Finished) -> dict[str, dict[str, Any]]:
    """The rows of the arms, with `warnings` and `stopped` where there are any."""
    return {arm: {**row, **_of_arm(arm, done)} for arm, row in rows.items()}


def of_stages(done: Finished) -> dict[str, list[dict[str, Any]]]:
    """Node -> warnings, of finished fits that are no arm's own: base, SFT, reward models."""
    arms = {node for arm in done.plan.arms for node in _fits(arm, done).values()}
    others = [n.name for n in done.plan.nodes if n.kind == "fit" and n.name not in arms and done.has(n.name)]
    found = {name: by_rule({str(done.plan[name].seed): _said(done, name)}) for name in others}
    return {name: warnings for name, warnings in found.items() if warnings}


def early_ends(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Arms that trained for fewer steps than planned, in words: their budgets are not those of the others."""
    return [
        f"training of {arm}, seed {seed}, stopped at step {end['step']} of {end['of']} because {end['sentence']}"
        for arm, row in rows.items()
        for seed, end in row.get("stopped", {}).items()
    ]


def _of_arm(arm: str, done: Finished) -> dict[str, Any]:
    fits = {str(seed): node for seed, node in _fits(arm, done).items()}
    warnings = by_rule({seed: _said(done, node) for seed, node in fits.items()})
    ends = {seed: done.store.path(done.plan[node].key) / STOPPED for seed, node in fits.items()}
    stopped = {seed: _read(path) for seed, path in ends.items() if path.exists()}
    return ({"warnings": warnings} if warnings else {}) | ({"stopped": stopped} if stopped else {})


def _fits(arm: str, done: Finished) -> dict[int, str]:
    """Seed -> the node that trained the arm, if it finished; nothing for an arm that is another stage's model."""
    seeds = done.plan.arms[arm] if done.plan.trained(arm) else {}
    return {seed: node for seed, node in seeds.items() if done.plan[node].kind == "fit" and done.has(node)}


def _said(done: Finished, name: str) -> list[dict[str, Any]]:
    node = done.plan[name]
    assert isinstance(node.spec, FitSpec)
    return remarks(done.store.path(node.key), node.spec)


def remarks(folder: Path, spec: FitSpec) -> list[dict[str, Any]]:
    """What the stage said; of one that was trained before stages said anything, what its metrics say now."""
    if (folder / WARNINGS).exists():
        return _read(folder / WARNINGS)
    from evenhand.stages.monitoring import silent  # torch, only where the stage itself did not say

    rows = (_rows(folder / name) for name in ("metrics.jsonl", "samples.jsonl"))
    return [asdict(remark) for remark in replay(*rows, silent=silent(spec.build()))]


def by_rule(seeds: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One entry per rule, in the words of the first seed, with the step and value of each seed it fired for.

    >>> words = dict.fromkeys(WORDS, "...")
    >>> found = by_rule({"0": [{"rule": "kl", "step": 3, "value": 51.0, **words}], "1": []})
    >>> found[0]["rule"], found[0]["seeds"]
    ('kl', {'0': {'step': 3, 'value': 51.0}})
    """
    rules: dict[str, dict[str, Any]] = {}
    for seed, found in seeds.items():
        for remark in found:
            entry = rules.setdefault(remark["rule"], {"rule": remark["rule"], **{w: remark[w] for w in WORDS}, "seeds": {}})
            entry["seeds"][seed] = {"step": remark["step"], "value": remark["value"]}
    return list(rules.values())


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _rows(path: Path) -> list[dict[str, Any]]:
    """Lines of a JSON-lines file, split at newlines only: texts may hold U+2028."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return [json.loads(line) for line in lines if line.strip()]
