"""Every answer against the baseline's answer to the same prompt, by one judge that sees neither name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evenhand.data.jsonl import read_groups
from evenhand.judges import Judge, Verdict, account, paired
from evenhand.judges.agreement import by_length
from evenhand.judges.config import LLM, LocalLLM, PreferenceModel, Settings, build
from evenhand.stages.common import build_reward, in_precision, setup, write_json
from evenhand.types import Group

CACHE = "judge-cache.jsonl"
"""Beside the artifacts: what judging models said, shared by every stage and run of this store."""
_SETTINGS: dict[str, type[Settings]] = {"llm": LLM, "local": LocalLLM, "preference_model": PreferenceModel}


def run(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], out: Path, report: Callable[..., None]) -> None:
    device = setup(spec)
    answers, baseline = (read_groups(inputs[role] / "generations.jsonl") for role in ("answers", "baseline"))
    comparisons = paired(answers, baseline)
    verdicts = open_judge(spec, inputs, out, device)(comparisons, report)
    proxies = {}
    for n, (name, reward) in enumerate(spec["proxies"].items()):
        report(n + 1, len(spec["proxies"]) + 1)
        proxies[name] = scores(build_reward(reward, inputs, spec, device), answers)
    found = {
        "prompt_id": [g.prompt.id for g in answers],
        "gold": numbers([v.score_a for v in verdicts]),
        "baseline_gold": numbers([v.score_b for v in verdicts]),
        "outcome": [v.outcome for v in verdicts],
        "invalid": [v.invalid for v in verdicts],
        "orders": [shown(v) for v in verdicts],
        "account": {**account(verdicts), **by_length(verdicts, comparisons)},
        "proxies": {name: numbers(values) for name, values in proxies.items()},
    }
    write_json(out / "verdicts.json", found)


def open_judge(spec: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, device: str) -> Judge:
    """The judge of a spec: a language model of `evenhand.judges.config`, else a reward."""
    given = dict(spec["judge"])
    kind = _SETTINGS.get(given["kind"])
    if kind is None:
        from evenhand.judges import RewardJudge
        from evenhand.rewards.tournament import Tournament

        reward = build_reward(spec["judge"], inputs, spec, device)
        if isinstance(reward, Tournament):
            return reward.judge  # which compares the two answers themselves
        name = given.get("name") or given.get("world") or given["kind"]
        return RewardJudge(reward, name=name, tie=spec["tie"])
    words = {k: v for k, v in given.items() if k not in ("template_sha", "fingerprint")}
    settings = kind(**words, **spec["how"])
    opened = None if kind is LLM else _opened(settings, spec, device)
    return build(settings, cache=out.parent / CACHE, opened=opened, weights=given.get("fingerprint") or "")


def _opened(settings: Any, spec: Mapping[str, Any], device: str) -> Any:
    from evenhand.data.template import Renderer
    from evenhand.models.load import load_policy, load_tokenizer

    policy = in_precision(load_policy(settings.path, dtype=spec["dtype"], device=device), spec)
    policy.eval()
    return policy, Renderer(load_tokenizer(settings.path))


def scores(reward: Any, groups: list[Group]) -> list[float]:
    """The reward of the one answer of each group."""
    return [s.values[0] for s in reward(groups)]


def numbers(values: list[float]) -> list[float | None]:
    """NaN, which JSON lacks, as null."""
    return [None if math.isnan(v) else v for v in values]


def shown(verdict: Verdict) -> list[dict[str, Any]]:
    """What a reader wants to see of a verdict's orders; nothing for scores, which have no order."""
    rows = verdict.to_json()["orders"] if len(verdict.orders) > 1 else []
    return [{k: row[k] for k in ("a_first", "outcome", "status", "label", "raw")} for row in rows]
