"""What checks of the model are made of: small batches, one loss, gradients, memory."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from evenhand.data.batch import pack
from evenhand.models.policy import Policy
from evenhand.objectives import Likelihood
from evenhand.train import loop
from evenhand.train.examples import Example, assemble, with_pairs
from evenhand.train.logprobs import read
from evenhand.types import Batch, Head, TokenGroup


def logps(policy: Policy, rows: Sequence[TokenGroup]) -> list[Tensor]:
    """Log-probs of every completion of the rows, one tensor each."""
    items = [Example(tokens=t) for t in rows]
    found = read(policy, items, frozenset({Head.LOGP}), tokens_per_microbatch=4096, temperature=1.0, device=policy.device)
    return [row for group in found[Head.LOGP] for row in group]


def furthest(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """The largest difference of two lists of log-probs, nats; NaN where there is one: no bound holds it."""
    return float(torch.cat([a - b for a, b in zip(first, second, strict=True)]).abs().max())


def gradients(policy: Policy, parts: Sequence[Sequence[TokenGroup]]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of the likelihood of rows cut into micro-batches `parts`; the model is left without gradients."""
    policy.zero_grad(set_to_none=True)
    batches = [pack(part).to(policy.device) for part in parts]
    loss, _ = loop.accumulate(policy, Likelihood(), batches)
    found = {n: p.grad.detach().clone() for n, p in policy.named_parameters() if p.requires_grad and p.grad is not None}
    policy.zero_grad(set_to_none=True)
    return float(loss), found


def pair_batch(policy: Policy, rows: Sequence[TokenGroup]) -> Batch:
    """Rows as pairs whose reference is the policy itself."""
    found = logps(policy, rows)
    items, at = [], 0
    for row in rows:
        count = len(row.completions)
        item = Example(
            tokens=row, per_token={"ref_logp": tuple(found[at : at + count])}, per_completion={"score": row.group.scores}
        )
        items.append(with_pairs(item))
        at += count
    return assemble([i for i in items if i.pairs]).to(policy.device)


def longest_batch(rows: Sequence[TokenGroup], budget: int) -> Batch:
    """The longest rows again and again, up to `budget` tokens: what the largest micro-batch is like."""
    ordered = sorted(rows, key=lambda r: -r.size)
    chosen, total = [ordered[0]], ordered[0].size
    while total + ordered[0].size <= budget:
        chosen.append(ordered[len(chosen) % len(ordered)])
        total += chosen[-1].size
    return pack(chosen)


def step(policy: Policy, batch: Batch) -> float:
    """Seconds of one forward and backward pass."""
    policy.zero_grad(set_to_none=True)
    begun = time.perf_counter()
    loop.accumulate(policy, Likelihood(), [batch.to(policy.device)])
    if policy.device.type == "cuda":
        torch.cuda.synchronize()
    policy.zero_grad(set_to_none=True)
    return time.perf_counter() - begun
