"""At load: does this model compute the same on a packed tree as on plain rows?"""

from __future__ import annotations

import torch
from torch import nn

from evenhand.data.batch import pack
from evenhand.models import attention
from evenhand.models.states import padded_states, tree_states
from evenhand.seeding import rng
from evenhand.types import Batch, Completion, Group, Prompt, TokenGroup, Tokens

SHAPES = ((7, (5, 2, 3)), (3, (6,)), (1, (1, 4)))
"""(prompt length, completion lengths) of the groups compared."""
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest relative difference of hidden states, per precision."""


def probe(vocabulary: int) -> Batch:
    """A few random groups, the same every time."""
    draw = rng("selfcheck", vocabulary)
    group = Group(prompt=Prompt(content=""), completions=(Completion(content=""),))

    def ids(n: int) -> tuple[int, ...]:
        return tuple(int(i) for i in draw.integers(0, vocabulary, n))

    def tokens(n: int) -> Tokens:
        return Tokens(ids=ids(n), mask=(True,) * n)

    return pack([TokenGroup(prompt=ids(p), completions=tuple(map(tokens, c)), group=group) for p, c in SHAPES])


@torch.no_grad()
def tree_problem(hf: nn.Module) -> str | None:
    """Why `hf` cannot run on trees, or None when it can."""
    device = next(hf.parameters()).device
    batch = probe(hf.config.get_text_config().vocab_size).to(device)
    try:
        with attention.watch() as seen:
            plain, tree = padded_states(hf, batch), tree_states(hf, batch)
    except attention.Unsupported as reason:
        return str(reason)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:  # a model may dislike flat rows in any of these ways
        return f"its forward pass rejects a packed tree ({type(error).__name__}: {error})"
    if not seen.tree_calls:
        return "its layers do not pass the tree on to their attention"
    if seen.masked != seen.attended:
        return f"its attention is not told its windows (masks {sorted(seen.masked)}, attention {sorted(seen.attended)})"
    real = plain.predictor >= 0
    a, b = (s.hidden[s.predictor[real]].double() for s in (plain, tree))
    difference = float((a - b).norm() / a.norm().clamp(min=1e-30))
    tolerance = TOLERANCE[next(hf.parameters()).dtype]
    if not difference <= tolerance:
        return f"tree and plain forward passes differ by {difference:.1e} (allowed {tolerance:.0e})"
    return None
