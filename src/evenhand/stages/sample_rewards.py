"""Several answers of the starting policy to each held-out prompt, scored by every reward model and, if it scores, by the judge.

From these come best-of-n curves (does choosing by the reward model help?) and the reward's leaning to length within a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evenhand.data.jsonl import write_groups
from evenhand.engines.local import LocalEngine
from evenhand.seeding import keyed
from evenhand.stages.common import build_reward, open_policy, open_renderer, read_split, setup, write_json
from evenhand.stages.judge import numbers
from evenhand.types import Group, Sampling


def run(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], out: Path, report: Callable[..., None]) -> None:
    device = setup(spec)
    policy, renderer = open_policy(inputs["start"], spec, device), open_renderer(inputs["start"], spec["template"])
    prompts = [g.prompt for g in read_split(inputs, "heldout_prompts")][: spec["prompts"]]
    lengths = spec["lengths"]
    sampling = Sampling(**spec["sampling"], max_tokens=lengths["completion"], seed=keyed(seed, "best of n"))
    groups = LocalEngine(policy, renderer).generate(
        prompts, spec["completions_per_prompt"], sampling, max_prompt=lengths["prompt"], progress=lambda d, n: report(d, n)
    )
    write_groups(out / "samples.jsonl", groups)
    scored = {name: table(build_reward(r, inputs, spec, device), groups) for name, r in spec["proxies"].items()}
    gold = table(build_reward(spec["gold"], inputs, spec, device), groups) if spec["gold"] is not None else None
    lengths_of = [[len(c.tokens or ()) for c in g.completions] for g in groups]
    write_json(out / "scores.json", {"proxies": scored, "gold": gold, "length": lengths_of})


def table(reward: Any, groups: list[Group]) -> list[list[float | None]]:
    """[prompts][answers] of a reward; null where it could not score."""
    return [numbers(list(s.values)) for s in reward(groups)]
