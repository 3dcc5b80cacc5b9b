"""Whether an engine that holds a copy of the policy samples from the policy: some of its log-probs, recomputed.

A copy goes stale without a word: a head that shares the embedding's weights is not loaded, an old prefix stays in a cache, an
update goes to another process. Its tokens look as always, and only the arms that sample suffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evenhand.errors import UserError
from evenhand.models.hidden_states import accepts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EXACT, ROUNDED = 1e-3, 0.05
"""Nats that log-probs of an engine may differ by on average: with weights in float32, and in less at the least. In float32 other
kernels differ by 1e-4 at most, a stale head by 0.6 to 4."""

_OTHER_WEIGHTS = "its weights are older ones, or a head or cache kept older ones, or it computes in another precision"


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """Tokens of an engine beside the policy's own reading of them: |told - own| and the size of the largest logit that each was
    drawn from, both [tokens], in nats."""

    apart: Tensor
    largest: Tensor


def together(parts: Sequence[Discrepancy]) -> Discrepancy:
    """The tokens of several answers."""
    return Discrepancy(torch.cat([p.apart for p in parts]), torch.cat([p.largest for p in parts]))


def tolerance_for(hf: PreTrainedModel, largest: Tensor) -> float:
    """What healthy copies differ by at the most, on average, by the precision of the weights.

    In less than float32 logits are rounded as well, here and in the engine: to steps of `eps * |logit|` (0.19 nats at the logits
    of SmolLM2-135M in bfloat16, where vLLM's log-probs are 0.07 from a plain forward pass and that is 0.04 from one in float32).
    """
    if hf.dtype.itemsize >= 4:
        return EXACT
    return max(ROUNDED, torch.finfo(hf.dtype).eps * float(largest.mean()))


@torch.no_grad()
def recomputed(
    hf: PreTrainedModel, prompt: Sequence[int], tokens: Sequence[int], told: Sequence[float], *, temperature: float
) -> Discrepancy:
    """Tokens drawn at that temperature with nothing cut off, by a plain forward pass of one row."""
    ids, kept = torch.tensor([[*prompt, *tokens]], device=hf.device), len(tokens) + 1
    named = {"logits_to_keep": kept} if accepts(type(hf).forward, "logits_to_keep") else {}
    logits = hf(input_ids=ids, use_cache=False, **named).logits[0, -kept:-1].float() / temperature
    own = logits.log_softmax(-1).gather(1, torch.tensor(tokens, device=logits.device)[:, None]).squeeze(1)
    apart = (torch.tensor(told, device=logits.device) - own).abs()
    return Discrepancy(apart.cpu(), logits.abs().amax(-1).cpu())


def check_same_texts(found: Sequence[str], own: Sequence[str], *, engine: str) -> None:
    """The same of an engine that only says text, by its answers at temperature 0 beside the policy's `own`. Small changes of the
    weights leave those as they are, and rounding changes some: half of them have to agree. Raises: UserError."""
    same = sum(a.strip() == b.strip() for a, b in zip(found, own, strict=True))
    if 2 * same < len(own):
        raise UserError(
            f"{engine} does not sample from the policy: {len(own) - same} of {len(own)} answers at temperature 0 are not its own",
            where="engine", why=_OTHER_WEIGHTS, fix="use an engine that loads every weight, in the policy's precision",
        )  # fmt: skip


def check_same_weights(apart: Tensor, tolerance: float, *, engine: str, temperatures: Sequence[float] = ()) -> None:
    """Raises: UserError where tokens of an engine are `apart` [tokens] (nats) by more than the tolerance on average, or by NaN.

    `temperatures` [tokens], where given, tell a copy of other weights from log-probs that were taken before the temperature.
    """
    mean = float(apart.mean()) if apart.numel() else 0.0
    if mean <= tolerance:
        return
    plain = torch.tensor([t == 1.0 for t in temperatures], dtype=torch.bool)
    raw = bool(plain.any()) and not bool(plain.all()) and float(apart[plain].mean()) <= tolerance
    why = "they agree at temperature 1 and not at others: they are those of before the temperature" if raw else _OTHER_WEIGHTS
    fix = (
        "start the server with `--logprobs-mode processed_logprobs`"
        if raw
        else "use an engine that loads every weight, in the policy's precision; "
        f"or let it pass with `engine: {{tolerance: {2 * mean:.2g}}}`"
    )
    raise UserError(
        f"{engine} does not sample from the policy: log-probs of {apart.numel()} tokens, recomputed, differ by {mean:.2g} nats "
        f"on average and {float(apart.max()):.2g} at most (allowed: {tolerance:g})",
        where="engine", why=why, fix=fix,
    )  # fmt: skip
