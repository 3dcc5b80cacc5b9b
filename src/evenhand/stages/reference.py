"""Reference log-probs of a split, computed once and shared by every arm and seed that needs them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from safetensors.torch import load_file, save_file

from evenhand.stages import tokens
from evenhand.stages.adapter import in_four_bits
from evenhand.stages.common import begin, open_policy
from evenhand.stages.context import StageContext
from evenhand.stages.setup import Setup
from evenhand.train.examples import Example
from evenhand.train.logprobs import Rows, read
from evenhand.train.shuffling import window
from evenhand.types import Head


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceSpec:
    """Log-probs of the input `tokens` under the input `start`, its logits divided by `temperature`.

    With `quantize` its linear layers are in four bits, as an adapter of that kind sees them. `drawn` are (seed, rows): as many as
    are ever learned from in that seed's order, so that the rest need not be read; None is every row.
    """

    KIND: ClassVar[str] = "reference"
    VERSION: ClassVar[int] = 3

    setup: Setup
    temperature: float = 1.0
    quantize: Literal["nf4"] | None = None
    drawn: tuple[tuple[int, int], ...] | None = None


def run(spec: ReferenceSpec, context: StageContext) -> None:
    device, items = begin(spec.setup.compute), tokens.read(context.inputs["tokens"])
    policy = open_policy(context.inputs["start"], spec.setup.compute, device)
    if spec.quantize is not None:
        in_four_bits(policy)
    size, learned = max(1, len(items) // 20), learned_from(spec.drawn, len(items))
    rows: Rows = []
    for first in range(0, len(items), size):
        part = items[first : first + size]
        found = read(
            policy, part, frozenset({Head.LOGP}), temperature=spec.temperature, device=device,
            tokens_per_microbatch=spec.setup.tokens_per_microbatch, wanted={i - first for i in learned},
        )[Head.LOGP]  # fmt: skip
        rows += [row or unread(item) for row, item in zip(found, part, strict=True)]
        context.report(min(first + size, len(items)), len(items))
    write_rows(context.out, rows)


def learned_from(drawn: Sequence[tuple[int, int]] | None, size: int) -> Collection[int]:
    """The rows that training draws, see `FixedSource.step`.

    >>> sorted(learned_from(((0, 2), (1, 2)), 9)), list(learned_from(((0, 9), (1, 2)), 9)) == list(range(9))
    ([0, 2, 3, 6], True)
    """
    if drawn is None or any(count >= size for _, count in drawn):
        return range(size)
    return {i for seed, count in drawn for i in window(seed, "rows", size, 0, count)}


def unread(item: Example) -> tuple[torch.Tensor, ...]:
    """What stands for a row that nothing learns from: whoever read it all the same would not go on."""
    return tuple(torch.full((len(c.ids),), torch.nan) for c in item.tokens.completions)


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
