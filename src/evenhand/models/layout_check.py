"""At load: does this model compute on a packed tree, and through the fused head, what it computes on plain rows?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evenhand.data.batch import completion_ids, pack
from evenhand.models import attention
from evenhand.models.head import FusedHead, LogitsHead
from evenhand.models.hidden_states import backbone, padded_states, tree_states
from evenhand.seeding import rng
from evenhand.types import Batch, Completion, Group, Prompt, TokenGroup, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHAPES = ((9, (5, 2, 3)), (7, (4,)), (8, (6, 6)), (1, (1, 4)))
"""(prompt length, completion lengths) of the groups compared."""
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest relative difference, per precision."""


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
def padding_problem(hf: PreTrainedModel) -> str | None:
    """Why `hf` cannot even run on padded rows (it is not causal, or has no backbone to call), or None when it can."""
    batch = _probe_for(hf)
    body = backbone(hf)
    if body is hf:
        return "it has no backbone apart from its head"
    both = padded_states(hf, batch)
    for row, ids in probe_rows(batch):
        alone = body(input_ids=ids[None]).last_hidden_state[0]
        sooner = body(input_ids=ids[None, :-1]).last_hidden_state[0]
        if _difference("a row and its beginning", alone[:-1], sooner):
            return "it is not causal, what comes later changes earlier states"
        start = row * (len(both.hidden) // len(batch.layout.completions))
        if (problem := _difference("padded and single rows", alone, both.hidden[start : start + len(ids)])) is not None:
            return problem
    return None


def probe_rows(batch: Batch) -> list[tuple[int, Tensor]]:
    """The shortest and the longest row of a batch: (number, ids)."""
    layout = batch.layout
    paths = [(layout.prompts[g], c) for c, g in zip(layout.completions, layout.owner, strict=True)]
    order = sorted(range(len(paths)), key=lambda i: paths[i][0].length + paths[i][1].length)
    return [(i, torch.cat([batch.ids[s.start : s.stop] for s in paths[i]])) for i in (order[0], order[-1])]


@torch.no_grad()
def tree_problem(hf: PreTrainedModel) -> str | None:
    """Why `hf` cannot run on trees, or None when it can."""
    batch = _probe_for(hf)
    try:
        with attention.watch() as seen:
            plain, tree = padded_states(hf, batch), tree_states(hf, batch)
    except attention.Unsupported as reason:
        return str(reason)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:  # a model may dislike flat rows in any of these ways
        return f"its forward pass rejects a packed tree ({type(error).__name__}: {error})"
    if not seen.attended:
        return "its layers do not pass the tree on to their attention"
    if seen.masked != seen.attended:
        return f"its attention is not told its windows (masks {seen.masked}, attention {seen.attended})"
    real = plain.predictor >= 0
    expected, found = (s.hidden[s.predictor[real]] for s in (plain, tree))
    return _difference("tree and plain forward passes", expected, found)


@torch.no_grad()
def head_problem(hf: PreTrainedModel, head: FusedHead) -> str | None:
    """Why log-probs of `hf` cannot come from its head's weights, or None when they can."""
    batch = _probe_for(hf)
    logits, states = padded_states(hf, batch, logits=True), padded_states(hf, batch)
    real = states.predictor >= 0
    ids = completion_ids(batch)[real.to(batch.ids.device)]
    rows = states.predictor[real]
    expected, _ = LogitsHead()(logits.hidden[rows], ids, temperature=1.0, entropy=False)
    fused, _ = head(states.hidden[rows], ids, temperature=1.0, entropy=False)
    return _difference("fused and plain log-probs", expected, fused, hf.dtype)


def _probe_for(hf: PreTrainedModel) -> Batch:
    return probe(hf.config.get_text_config().vocab_size).to(next(hf.parameters()).device)


def _difference(what: str, expected: Tensor, found: Tensor, dtype: torch.dtype | None = None) -> str | None:
    """A sentence when two tensors differ by more than the precision allows, relative to the norm of the first."""
    a, b = expected.double(), found.double()
    difference = float((a - b).norm() / a.norm().clamp(min=1e-30))
    tolerance = TOLERANCE[dtype or expected.dtype]
    return None if difference <= tolerance else f"{what} differ by {difference:.1e} (allowed {tolerance:.0e})"
