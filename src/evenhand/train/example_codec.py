"""Items as JSON, exactly: what a resumed run needs of a rollout it was still training on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from evenhand.data.jsonl import group_from_json, group_to_json
from evenhand.train.examples import Example
from evenhand.types import Group, TokenGroup, Tokens


def to_json(item: Example) -> dict[str, Any]:
    """Every field of an item of rollouts; fp32 values survive the trip through Python floats bit by bit."""
    group = item.tokens.group
    return {
        "group": group_to_json(group),
        **({"earned": [c.earned for c in group.completions]} if any(c.earned is not None for c in group.completions) else {}),
        "prompt": list(item.tokens.prompt),
        "completions": [[list(c.ids), list(c.mask), c.behaviour_logp, c.truncated] for c in item.tokens.completions],
        "per_token": {k: [row.tolist() for row in rows] for k, rows in item.per_token.items()},
        "per_completion": {k: list(v) for k, v in item.per_completion.items()},
        "pairs": [list(p) for p in item.pairs],
        "margin": list(item.margin),
        "pair_weight": list(item.pair_weight),
        **({"pair_margin": list(item.pair_margin)} if item.pair_margin else {}),
        **({"shown": [list(ids) for ids in item.shown]} if item.shown else {}),
        "denominator_only": item.denominator_only,
    }


def from_json(data: Mapping[str, Any]) -> Example:
    """The inverse of `to_json`."""
    completions = tuple(
        Tokens(ids=tuple(ids), mask=tuple(mask), behaviour_logp=None if logp is None else tuple(logp), truncated=cut)
        for ids, mask, logp, cut in data["completions"]
    )
    tokens = TokenGroup(prompt=tuple(data["prompt"]), completions=completions, group=_group(data))
    return Example(
        tokens=tokens,
        per_token={k: tuple(torch.tensor(row, dtype=torch.float32) for row in rows) for k, rows in data["per_token"].items()},
        per_completion={k: tuple(v) for k, v in data["per_completion"].items()},
        pairs=tuple((i, j) for i, j in data["pairs"]),
        margin=tuple(data["margin"]),
        pair_weight=tuple(data["pair_weight"]),
        pair_margin=tuple(data.get("pair_margin", ())),
        shown=tuple(tuple(ids) for ids in data.get("shown", ())),
        denominator_only=data["denominator_only"],
    )


def _group(data: Mapping[str, Any]) -> Group:
    """With what its answers earned on the way, which no file of groups holds: a rollout in flight is credited later."""
    group = group_from_json(data["group"])
    if "earned" not in data:
        return group
    rows = zip(group.completions, data["earned"], strict=True)
    return replace(group, completions=tuple(replace(c, earned=None if row is None else tuple(row)) for c, row in rows))
