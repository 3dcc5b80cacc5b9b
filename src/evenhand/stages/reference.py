"""Reference log-probs of a split, computed once and shared by every arm and seed that needs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from evenhand import methods
from evenhand.objectives import Likelihood
from evenhand.stages.common import open_policy, open_renderer, setup, to_items
from evenhand.stages.offline import split_groups
from evenhand.train.examples import with_pairs
from evenhand.train.logprobs import Rows, read
from evenhand.types import Head


def run(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], out: Path, report: Callable[..., None]) -> None:
    device = setup(spec)
    data = methods.BINARY if spec["binary"] else methods.PREFERENCES
    asks = methods.Method(objective=Likelihood(), data=data)
    groups = split_groups({"data": None if spec["split"] == methods.BINARY else spec["split"]}, inputs, asks)
    items = to_items(groups, open_renderer(inputs["start"], spec["template"]), spec)
    if data == methods.PREFERENCES:
        items = [i for i in map(with_pairs, items) if i.pairs]
    policy = open_policy(inputs["start"], spec, device)
    size = max(1, len(items) // 20)
    rows: Rows = []
    for start in range(0, len(items), size):
        part = items[start : start + size]
        rows += read(
            policy,
            part,
            frozenset({Head.LOGP}),
            tokens_per_microbatch=spec["tokens_per_microbatch"],
            temperature=spec.get("temperature", 1.0),
            device=device,
        )[Head.LOGP]
        report(min(start + size, len(items)), len(items))
    write_rows(out, rows)


def write_rows(out: Path, rows: Rows) -> None:
    """Ragged rows as three flat tensors: log-probs, completion lengths, completions per group."""
    tensors = {
        "logp": torch.cat([r for group in rows for r in group]),
        "lengths": torch.tensor([len(r) for group in rows for r in group]),
        "completions": torch.tensor([len(group) for group in rows]),
    }
    save_file(tensors, out / "reference.safetensors")


def read_rows(artifact: Path) -> Rows:
    """The inverse of `write_rows`."""
    tensors = load_file(artifact / "reference.safetensors")
    rows = list(tensors["logp"].split(tensors["lengths"].tolist()))
    out, at = [], 0
    for count in tensors["completions"].tolist():
        out.append(tuple(rows[at : at + count]))
        at += count
    return out
