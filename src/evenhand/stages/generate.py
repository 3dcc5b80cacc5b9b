"""Answers to the held-out prompts, by the same sampler for every arm, and how far they lie from the start.

With `best_of` n the answer is the best of n samples by a reward; its KL is that of one sample plus the bound log n - (n - 1)/n.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from evenhand.core.selection import best_of
from evenhand.data.jsonl import write_groups
from evenhand.engines.local import LocalEngine
from evenhand.protocols import Reward
from evenhand.seeding import keyed, rng
from evenhand.stages.common import build_reward, model_path, open_policy, open_renderer, read_split, setup, write_json
from evenhand.stats.bestofn import kl_bound
from evenhand.train.examples import Item
from evenhand.train.logprobs import read, total
from evenhand.types import Finish, Group, Head, Sampling


def run(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], out: Path, report: Callable[..., None]) -> None:
    device = setup(spec)
    policy, renderer = open_policy(inputs["policy"], spec, device), open_renderer(inputs["policy"], spec["template"])
    prompts = [g.prompt for g in read_split(inputs, spec.get("split", "heldout_prompts"))][: spec["prompts"]]
    lengths = spec["lengths"]
    sampling = Sampling(**spec["sampling"], max_tokens=lengths["completion"], seed=keyed(seed, "evaluation"))
    count = spec.get("best_of", 1)
    groups = LocalEngine(policy, renderer).generate(
        prompts, count, sampling, max_prompt=lengths["prompt"], progress=lambda done, all_: report(done, all_)
    )
    if count > 1:
        groups = best_ones(groups, build_reward(spec["reward"], inputs, spec, device), seed)
    write_groups(out / "generations.jsonl", groups)
    items = [Item(tokens=renderer.tokenise(g, max_prompt=lengths["prompt"], max_completion=None)) for g in groups]
    same = model_path(inputs["policy"]) == model_path(inputs["start"])
    start = policy if same else open_policy(inputs["start"], spec, device)
    kl = kl_per_answer(items, policy, start, spec, device)
    write_json(out / "measured.json", measured(groups, [k + kl_bound(count) for k in kl]))


def best_ones(groups: Sequence[Group], reward: Reward, seed: int) -> list[Group]:
    """Each group with its best answer alone; ties broken by keyed numbers. A group without a scored answer keeps its first."""
    kept = []
    for group, scored in zip(groups, reward(groups), strict=True):
        scores = torch.tensor([scored.values], dtype=torch.float64)
        uniform = torch.from_numpy(rng(seed, "best of n", group.prompt.id).random(scores.shape))
        best = int(best_of(scores, uniform)[0]) if not scores.isnan().all() else 0
        kept.append(Group(prompt=group.prompt, completions=(group.completions[best],), scores=(scored.values[best],)))
    return kept


def kl_per_answer(items: list[Item], policy: Any, start: Any, spec: Mapping[str, Any], device: str) -> list[float]:
    """sum_t log pi - log start of each answer, nats, at temperature 1; for samples at 1 its mean estimates KL(pi || start)."""
    logps = [
        read(
            m, items, frozenset({Head.LOGP}), tokens_per_microbatch=spec["tokens_per_microbatch"], temperature=1.0, device=device
        )[Head.LOGP]
        for m in (policy, start)
    ]
    rows = zip(items, *logps, strict=True)
    return [total(own[0] - ref[0], item.tokens.completions[0].mask) for item, own, ref in rows]


def measured(groups: list[Group], kl: list[float]) -> dict[str, Any]:
    """Per answer: KL to the start (nats), length in tokens and characters, whether it was cut."""
    answers = [g.completions[0] for g in groups]
    return {
        "prompt_id": [g.prompt.id for g in groups],
        "kl": kl,
        "length": [len(c.tokens or ()) for c in answers],
        "chars": [len(c.text) for c in answers],
        "truncated": [c.finish is Finish.LENGTH for c in answers],
    }
