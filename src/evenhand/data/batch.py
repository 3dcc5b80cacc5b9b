"""From tokenised groups to one flat sequence, and the index arithmetic on it.

Flat order is prompt 0, its completions, prompt 1, its completions, ...; nothing is padded. Position ids restart with each group,
and every completion continues from the end of its prompt, so a group is a tree of depth two.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import torch
from torch import Tensor

from evenhand.types import Batch, Layout, Span, TokenGroup


def pack(groups: Sequence[TokenGroup]) -> Batch:
    """Groups as one packed batch: ids, positions [T], layout, completion_mask [N, C], and behaviour_logp [N, C] if all have it.

    Completions are numbered in order of groups, then of completions within a group. Raises ValueError without groups.

    >>> from evenhand.types import Completion, Group, Prompt, Tokens
    >>> group = Group(prompt=Prompt(content="2+2="), completions=(Completion(content="4"), Completion(content="22")))
    >>> tokens = Tokens(ids=(7, 0), mask=(True, True)), Tokens(ids=(5, 5, 0), mask=(True, True, True))
    >>> batch = pack([TokenGroup(prompt=(1, 2), completions=tokens, group=group)])
    >>> batch.ids.tolist(), batch.positions.tolist()
    ([1, 2, 7, 0, 5, 5, 0], [0, 1, 2, 3, 2, 3, 4])
    >>> batch.completion_mask.int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    if not groups:
        raise ValueError("a batch needs at least one group")
    layout = _layout(groups)
    tokens = [c for g in groups for c in g.completions]
    ids = torch.tensor(list(chain.from_iterable(_flat_ids(groups))), dtype=torch.long)
    mask = pad_rows([c.mask for c in tokens], torch.bool)
    logps = [c.behaviour_logp for c in tokens if c.behaviour_logp is not None]
    behaviour = pad_rows(logps, torch.float32) if len(logps) == len(tokens) else None
    return Batch(ids=ids, positions=_positions(layout), layout=layout, completion_mask=mask, behaviour_logp=behaviour)


def split_by_tokens(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of items in micro-batches whose sizes sum to at most `budget` tokens; an item above the budget goes alone.

    Longest first (first-fit decreasing), so that running out of memory shows at once; ties keep their order.

    >>> split_by_tokens([3, 9, 4, 5], budget=10)
    [[1], [3, 2], [0]]
    """
    if budget < 1:
        raise ValueError(f"the token budget must be positive, got {budget}")
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        fits = next((b for b, free in enumerate(room) if sizes[index] <= free), None)
        if fits is None:
            bins.append([])
            room.append(budget)
            fits = len(bins) - 1
        bins[fits].append(index)
        room[fits] -= sizes[index]
    return bins


def split_evenly(sizes: Sequence[int], budget: int, parts: int) -> list[list[int]]:
    """The same in a multiple of `parts` micro-batches of about equal size; fewer where there are fewer items.

    >>> split_evenly([3, 9, 4, 5], budget=100, parts=2)
    [[1, 0], [3, 2]]
    """
    count = -(-len(split_by_tokens(sizes, budget)) // parts) * parts
    while True:
        bins: list[list[int]] = [[] for _ in range(count)]
        held = [0] * count
        for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
            least = min(range(count), key=lambda b: (held[b], b))
            bins[least].append(index)
            held[least] += sizes[index]
        if all(size <= budget or len(items) == 1 for size, items in zip(held, bins, strict=True)):
            return [items for items in bins if items]
        count += parts


def pad_rows(rows: Sequence[Sequence[float]], dtype: torch.dtype, *, width: int | None = None) -> Tensor:
    """Rows of different lengths as a tensor [N, C], filled with zeros on the right."""
    out = torch.zeros(len(rows), width or max(map(len, rows)), dtype=dtype)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=dtype)
    return out


@lru_cache(maxsize=256)
def token_index(layout: Layout) -> Tensor:
    """Where token t of completion i lies in the flat sequence, [N, C]; -1 at padding."""
    starts = torch.tensor([s.start for s in layout.completions])
    lengths = torch.tensor([s.length for s in layout.completions])
    column = torch.arange(int(lengths.max()))
    return torch.where(column < lengths[:, None], starts[:, None] + column, -1)


@lru_cache(maxsize=256)
def predictor_index(layout: Layout) -> Tensor:
    """Where the state that predicts token t of completion i lies in the flat sequence, [N, C]; -1 at padding.

    This is the project's only shift by one: the state before the first token is the prompt's last, before token t it is t - 1's.
    """
    index = token_index(layout) - 1
    index[:, 0] = torch.tensor([layout.prompts[g].stop - 1 for g in layout.owner])
    return index.clamp_(min=-1)


def completion_ids(batch: Batch) -> Tensor:
    """Token ids of the completions, [N, C]; 0 at padding."""
    index = token_index(batch.layout).to(batch.ids.device)
    return torch.where(index >= 0, batch.ids[index.clamp(min=0)], 0)


def _flat_ids(groups: Sequence[TokenGroup]) -> list[tuple[int, ...]]:
    return [part for g in groups for part in (g.prompt, *(c.ids for c in g.completions))]


def _layout(groups: Sequence[TokenGroup]) -> Layout:
    prompts, completions, owner, at = [], [], [], 0
    for number, group in enumerate(groups):
        prompts.append(Span(at, len(group.prompt)))
        at += len(group.prompt)
        for tokens in group.completions:
            completions.append(Span(at, len(tokens.ids)))
            owner.append(number)
            at += len(tokens.ids)
    if any(s.length == 0 for s in chain(prompts, completions)):
        raise ValueError("a prompt and a completion have at least one token each")
    return Layout(tuple(prompts), tuple(completions), tuple(owner))


def _positions(layout: Layout) -> Tensor:
    out = torch.empty(layout.total, dtype=torch.long)
    for span in layout.prompts:
        out[span.start : span.stop] = torch.arange(span.length)
    for prompt, span in paths(layout):
        out[span.start : span.stop] = torch.arange(prompt.length, prompt.length + span.length)
    return out


def paths(layout: Layout) -> list[tuple[Span, Span]]:
    """Each completion behind its prompt."""
    return [(layout.prompts[group], completion) for group, completion in zip(layout.owner, layout.completions, strict=True)]
