"""Reference log-probs of a split, computed once and shared by every arm and seed that needs them."""

from __future__ import annotations

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
from evenhand.train.logprobs import Rows, read
from evenhand.types import Head


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceSpec:
    """Log-probs of the input `tokens` under the input `start`, its logits divided by `temperature`.

    With `quantize` its linear layers are in four bits, as an adapter of that kind sees them.
    """

    KIND: ClassVar[str] = "reference"
    VERSION: ClassVar[int] = 3

    setup: Setup
    temperature: float = 1.0
    quantize: Literal["nf4"] | None = None


def run(spec: ReferenceSpec, context: StageContext) -> None:
    device, items = begin(spec.setup.compute), tokens.read(context.inputs["tokens"])
    policy = open_policy(context.inputs["start"], spec.setup.compute, device)
    if spec.quantize is not None:
        in_four_bits(policy)
    size = max(1, len(items) // 20)
    rows: Rows = []
    for first in range(0, len(items), size):
        part = items[first : first + size]
        rows += read(
            policy, part, frozenset({Head.LOGP}), temperature=spec.temperature, device=device,
            tokens_per_microbatch=spec.setup.tokens_per_microbatch,
        )[Head.LOGP]  # fmt: skip
        context.report(min(first + size, len(items)), len(items))
    write_rows(context.out, rows)


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
