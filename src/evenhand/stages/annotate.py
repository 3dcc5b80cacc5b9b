"""Preference pairs made here: the starting policy answers, a reward compares, labels carry Bradley-Terry noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evenhand.data.jsonl import write_groups
from evenhand.engines.local import LocalEngine
from evenhand.seeding import keyed
from evenhand.stages.common import build_reward, open_policy, open_renderer, read_split, setup
from evenhand.types import Group, Sampling


def run(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], out: Path, report: Callable[..., None]) -> None:
    device = setup(spec)
    policy, renderer = open_policy(inputs["start"], spec, device), open_renderer(inputs["start"], spec["template"])
    reward = build_reward(spec["reward"], inputs, spec, device)
    engine, lengths = LocalEngine(policy, renderer), spec["lengths"]
    for split, count in (("preferences", spec["prompts"]), ("heldout_preferences", spec["heldout_prompts"])):
        prompts = [g.prompt for g in read_split(inputs, split.replace("preferences", "prompts"))][:count]
        sampling = Sampling(temperature=spec["temperature"], max_tokens=lengths["completion"], seed=keyed(seed, split))
        groups = engine.generate(
            prompts, spec["completions_per_prompt"], sampling, max_prompt=lengths["prompt"], progress=lambda d, n: report(d, n)
        )
        write_groups(out / f"{split}.jsonl", labelled(groups, reward, spec, seed))


def labelled(groups: list[Group], reward: Any, spec: Mapping[str, Any], seed: int) -> list[Group]:
    """Groups scored 1 and 0 by a noisy annotator that sees the reward."""
    from evenhand.rewards.annotate import Annotator, annotate

    annotator = Annotator(temperature=spec["noise"], bias_per_word=spec["bias_per_word"], flip=spec["flip"])
    return list(annotate(groups, reward, annotator, seed=seed).pairs)
