"""A source over a fixed dataset: every offline method, SFT and reward models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.core.kto import mismatched
from evenhand.errors import UserError
from evenhand.protocols import Step
from evenhand.seeding import rng
from evenhand.train.cost_accounting import Ledger
from evenhand.train.examples import Example, micro_batches
from evenhand.train.shuffling import window
from evenhand.types import TokenGroup

Reference = Callable[[Sequence[Example]], list[tuple[Tensor, ...]]]
"""Log-probs of items under the frozen reference."""


@dataclass(kw_only=True)
class FixedSource:
    """Items in a keyed order, `prompts_per_step` of them in each optimizer step. It has no state: step i is a function of i.

    With `reference`, each step also carries denominator-only rows that pair its prompts with other prompts' completions (KTO).
    `uniform` draws a number per token for every step (SamPO). `compare` gives every step's rows their reference log-probs, and
    what is made of them, where none were read in advance. `ranks` share the micro-batches of a step.
    """

    items: Sequence[Example]
    prompts_per_step: int
    tokens_per_microbatch: int
    seed: int
    ledger: Ledger
    reference: Reference | None = None
    uniform: bool = False
    compare: Callable[[Sequence[Example]], list[Example]] | None = None
    ranks: int = 1
    carried: Mapping[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.items:
            raise UserError(
                "no row is left to learn from", where="data", why="rows whose answers all have one score, or none, rank nothing",
                fix="check the column of scores; `evenhand doctor` shows such rows",
            )  # fmt: skip

    @property
    def groups(self) -> Sequence[TokenGroup]:
        return [e.tokens for e in self.items]

    def step(self, index: int) -> Step:
        rows = window(self.seed, "rows", len(self.items), index * self.prompts_per_step, self.prompts_per_step)
        chosen = [self.items[i] for i in rows]
        if self.uniform:
            chosen = with_uniform(chosen, self.seed, index)
        if self.compare is not None:
            with self.ledger.phase("reference"):
                chosen = self.compare(chosen)
        if self.reference is not None:
            with self.ledger.phase("reference"):
                chosen = chosen + mismatched_items(chosen, self.reference)
        self.ledger.tokens_trained += sum(i.tokens.size for i in chosen if not i.denominator_only)
        return Step(micro_batches(chosen, self.tokens_per_microbatch, self.ranks))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return None


def with_reference(items: Sequence[Example], rows: Sequence[tuple[Tensor, ...]]) -> list[Example]:
    """The items with their log-probs under a reference."""
    return [replace(i, per_token={**i.per_token, "ref_logp": row}) for i, row in zip(items, rows, strict=True)]


def with_uniform(items: Sequence[Example], *key: int) -> list[Example]:
    """The items with a random number in [0, 1) per token, keyed by `key` and their places."""
    out = []
    for place, item in enumerate(items):
        draw = rng("uniform", *key, place)
        rows = tuple(torch.from_numpy(draw.random(len(c.ids), dtype="float32")) for c in item.tokens.completions)
        out.append(replace(item, per_token={**item.per_token, "uniform": rows}))
    return out


def mismatched_items(items: Sequence[Example], reference: Reference) -> list[Example]:
    """Each prompt with a completion of another prompt, each completion used once, as denominator-only rows with NaN score."""
    names = {item.tokens.group.prompt.id: n for n, item in enumerate(items)}
    prompts = torch.tensor([names[item.tokens.group.prompt.id] for item in items])
    partners = mismatched(prompts).tolist()
    out = []
    for item, partner in zip(items, partners, strict=True):
        if partner < 0:
            continue
        other = items[partner].tokens.completions[:1]
        tokens = replace(item.tokens, completions=other)
        out.append(Example(tokens=tokens, per_completion={"score": (float("nan"),)}, denominator_only=True))
    return with_reference(out, reference(out))
