"""What the networks say of sampled completions, before anything is learned from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from evenhand.train.examples import Example
from evenhand.train.logprobs import Rows
from evenhand.types import Group, Head, TokenGroup

FIELDS = {Head.LOGP: "old_logp", Head.VALUE: "value", Head.KL: "exact_kl", Head.COLLISION: "collision"}


@dataclass(frozen=True, kw_only=True)
class Reader:
    """`read(heads, examples)` gives the trainer's own log-probs and values; `reference(examples)` those of the reference."""

    tokenise: Callable[[Group], TokenGroup]
    read: Callable[[frozenset[Head], Sequence[Example]], dict[Head, Rows]]
    reference: Callable[[Sequence[Example]], Rows] | None = None

    def __call__(self, examples: Sequence[Example], heads: frozenset[Head], *, generator_is_reference: bool) -> list[Example]:
        """The examples with a field per head; `old_logp` is as sampled where the trainer is not asked for it."""
        fields = {FIELDS[head]: rows for head, rows in (self.read(heads, examples) if heads else {}).items()}
        if Head.LOGP not in heads:
            fields["old_logp"] = [tuple(torch.tensor(c.behaviour_logp) for c in e.tokens.completions) for e in examples]
        if generator_is_reference:
            fields["ref_logp"] = fields["old_logp"]
        elif self.reference is not None:
            fields["ref_logp"] = self.reference(examples)
        return [replace(e, per_token={name: rows[n] for name, rows in fields.items()}) for n, e in enumerate(examples)]
