"""Whatever is merged or converted is compared with the live original: logits of a few tokens, before it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evenhand.errors import UserError
from evenhand.seeding import rng

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest norm of the difference of logits over their norm, per precision, for the same model computed in another way.

float64 is not held to its own rounding: norms and rotations compute in float32 whatever the weights are.
"""
ROUNDED = 0.5
"""The same after weights were rounded to a narrower precision. Rounding costs a few hundredths; what overflows is not finite."""
LENGTHS = (3, 9, 16)
NAMED = 8
"""Tokens looked at by name (those an adapter trains), and at the end of the vocabulary (where tokens are added)."""


@dataclass(frozen=True, slots=True)
class Original:
    """What a live model answers to a few tokens: `rows` of token ids, and for each its logits (a classifier: its scores)."""

    rows: tuple[tuple[int, ...], ...]
    logits: tuple[Tensor, ...]

    @classmethod
    def of(cls, model: Any, vocabulary: int, *, tokens: Sequence[int] = ()) -> Original:
        """`model` as it computes now; `tokens` are among those looked at."""
        rows = _rows(vocabulary, tokens)
        return cls(rows, tuple(_answers(model, rows)))

    @property
    def finite(self) -> bool:
        """Whether all it answered are numbers."""
        return all(bool(a.isfinite().all()) for a in self.logits)

    def difference(self, model: Any) -> float:
        """Norm of the difference of `model`'s logits from the original's, over their norm; infinite where one is no number."""
        pairs = list(zip(self.logits, _answers(model, self.rows), strict=True))
        if any(a.shape != b.shape for a, b in pairs):
            return float("inf")
        size = sum(float(a.square().sum()) for a, _ in pairs)
        off = sum(float((a - b).square().sum()) for a, b in pairs)
        found = (off / max(size, 1e-60)) ** 0.5
        return found if found == found else float("inf")

    def compare(self, model: Any, *, what: str, where: str, fix: str, allowed: float | None = None) -> None:
        """Raises UserError where `model`, which was made by `what`, computes something else than the original.

        `allowed` None: what its precision allows.
        """
        limit = TOLERANCE.get(next(model.parameters()).dtype, TOLERANCE[torch.bfloat16]) if allowed is None else allowed
        found = self.difference(model)
        if not found <= limit:
            raise UserError(
                f"{what} gives another model", where=where, fix=fix,
                why=f"its logits on a few tokens are off by {found:.1e} of their size (allowed {limit:.0e})",
            )  # fmt: skip


def _rows(vocabulary: int, tokens: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Random rows of a few lengths; then the tokens that are named, and the last of the vocabulary."""
    draw = rng("equivalence", vocabulary)
    random = [tuple(int(i) for i in draw.integers(0, vocabulary, n)) for n in LENGTHS]
    named = [i for i in tokens if 0 <= i < vocabulary][:NAMED]
    return (*random, (*named, *range(max(0, vocabulary - NAMED), vocabulary)))


@torch.no_grad()
def _answers(model: Any, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    device = next(model.parameters()).device
    return [model(input_ids=torch.tensor([row], device=device)).logits.double().cpu() for row in rows]
