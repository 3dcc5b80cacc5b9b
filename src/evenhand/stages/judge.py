"""Every answer against the baseline's answer to the same prompt, by one judge that sees neither name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evenhand.data.jsonl import read_groups
from evenhand.stages.common import build_reward, setup, write_json
from evenhand.types import Group


def run(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], out: Path, report: Callable[..., None]) -> None:
    device = setup(spec)
    answers, baseline = (read_groups(inputs[role] / "generations.jsonl") for role in ("answers", "baseline"))
    check_same_prompts(answers, baseline)
    judge = build_reward(spec["judge"], inputs, spec, device)
    ours, theirs = scores(judge, answers), scores(judge, baseline)
    proxies = {}
    for n, (name, reward) in enumerate(spec["proxies"].items()):
        report(n + 1, len(spec["proxies"]) + 1)
        proxies[name] = scores(build_reward(reward, inputs, spec, device), answers)
    verdicts = {
        "prompt_id": [g.prompt.id for g in answers],
        "gold": ours,
        "baseline_gold": theirs,
        "outcome": [outcome(a, b, spec["tie"]) for a, b in zip(ours, theirs, strict=True)],
        "proxies": proxies,
    }
    write_json(out / "verdicts.json", verdicts)


def scores(reward: Any, groups: list[Group]) -> list[float]:
    """The reward of the one answer of each group."""
    return [s.values[0] for s in reward(groups)]


def outcome(ours: float, theirs: float, tie: float) -> float:
    """1 for a win, 0 for a loss, 1/2 for a tie.

    >>> outcome(2.0, 1.0, 0.0), outcome(1.0, 1.0, 0.0), outcome(0.0, 1.0, 0.0)
    (1.0, 0.5, 0.0)
    """
    if abs(ours - theirs) <= tie:
        return 0.5
    return float(ours > theirs)


def check_same_prompts(a: list[Group], b: list[Group]) -> None:
    if [g.prompt.id for g in a] != [g.prompt.id for g in b]:
        raise ValueError("the two sets of answers are to different prompts")
