"""At load: does this model compute on a packed tree, and through the fused head, what it computes on plain rows?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evenhand.data.batch import completion_ids, pack, paths
from evenhand.models import attention
from evenhand.models.equivalence import TOLERANCE
from evenhand.models.head import FusedHead, LogitsHead
from evenhand.models.hidden_states import backbone, padded_states, tree_states, without_cache
from evenhand.models.rope_length import Sides, start_over
from evenhand.models.routers import balance, row_tokens
from evenhand.models.second_opinion import also_in_float32
from evenhand.seeding import rng
from evenhand.types import Batch, Completion, Group, Prompt, TokenGroup, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHAPES = ((9, (5, 2, 3)), (7, (4,)), (8, (6, 6)), (1, (1, 4)))
"""(prompt length, completion lengths) of the groups compared."""
LONG = (30, (18, 5))
"""One more group, beside which short rows must stay what they are: what a model does by length (buckets, blocks, windows, rotary
frequencies) is seen only there. Where frequencies change within `WITHIN` tokens, the longer row goes past that."""
WITHIN = 256
FAILURES = (TypeError, ValueError, RuntimeError, IndexError, AttributeError)
"""A model may dislike rows that it was not written for in any of these ways."""
RESERVED = 4
"""Rows of a table of positions that may not be positions: some tables keep their first for padding."""
LOUD = 20.0
"""Size of the logits at which heads are compared: a soft cap does nothing to those of a network that was just made."""


def probe(vocabulary: int, shapes: Sequence[tuple[int, Sequence[int]]] = SHAPES, special: Sequence[int] = ()) -> Batch:
    """A few random groups, the same every time; tokens of `special` (padding, say) are among those of every completion."""
    draw = rng("selfcheck", vocabulary)
    group = Group(prompt=Prompt(content=""), completions=(Completion(content=""),))

    def ids(n: int) -> tuple[int, ...]:
        return tuple(int(i) for i in draw.integers(0, vocabulary, n))

    def tokens(n: int) -> Tokens:
        drawn = ids(n)
        return Tokens(ids=(drawn[0], *special, *drawn[1 + len(special) :])[:n], mask=(True,) * n)

    return pack([TokenGroup(prompt=ids(p), completions=tuple(map(tokens, c)), group=group) for p, c in shapes])


@also_in_float32
@torch.no_grad()
def padding_problem(hf: PreTrainedModel) -> str | None:
    """Why `hf` cannot even run on padded rows (it is not causal, or has no backbone to call), or None when it can."""
    body = backbone(hf)
    if body is hf:
        return "it has no backbone apart from its head"
    try:
        return _rows_problem(hf, _probe_for(hf)) or _rows_problem(hf, _probe_for(hf, long_shapes(hf.config)))
    except FAILURES as error:
        return f"its forward pass fails on padded rows ({type(error).__name__}: {error})"


@also_in_float32
@torch.no_grad()
def logits_problem(hf: PreTrainedModel) -> str | None:
    """The same of the logits that `hf` computes itself, where its head is more than a linear layer."""
    shapes = long_shapes(hf.config)
    return _rows_problem(hf, _probe_for(hf), logits=True) or _rows_problem(hf, _probe_for(hf, shapes), logits=True)


def _rows_problem(hf: PreTrainedModel, batch: Batch, *, logits: bool = False) -> str | None:
    """The shortest and the longest row beside others, alone, and without their last token."""
    both, rule = padded_states(hf, batch, logits=logits), Sides(hf.config)

    def alone(ids: Tensor) -> Tensor:
        start_over(hf)
        out = (hf if logits else backbone(hf))(input_ids=ids[None], **without_cache(hf if logits else backbone(hf)))
        return out.logits[0] if logits else out.last_hidden_state[0]

    for row, ids in probe_rows(batch):
        whole = alone(ids)
        same = rule.of(len(ids)) == rule.of(len(ids) - 1)
        if same and _difference("a row and its beginning", whole[:-1], alone(ids[:-1])):
            return "it is not causal, what comes later changes earlier states"
        at = int(both.last[row]) + 1
        if (problem := _difference("padded and single rows", whole, both.hidden[at - len(ids) : at])) is not None:
            return problem
    return None


def long_shapes(config: Any) -> tuple[tuple[int, Sequence[int]], ...]:
    """A long group beside a short one, within the positions that the model has."""
    prompt, completions = LONG
    switch = Sides(config).switch
    if switch is not None and switch <= WITHIN:
        prompt = max(prompt, switch)
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    room = switch is not None or not isinstance(limit, int) or limit >= prompt + max(completions) + RESERVED
    return ((prompt, completions), SHAPES[0]) if room else SHAPES


def probe_rows(batch: Batch) -> list[tuple[int, Tensor]]:
    """The shortest and the longest row of a batch: (number, ids)."""
    rows = _rows(batch)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    return [(i, rows[i]) for i in (order[0], order[-1])]


def _rows(batch: Batch) -> list[Tensor]:
    """The ids of each prompt with a completion."""
    return [torch.cat([batch.ids[s.start : s.stop] for s in row]) for row in paths(batch.layout)]


@also_in_float32
@torch.no_grad()
def tree_problem(hf: PreTrainedModel) -> str | None:
    """Why `hf` cannot run on trees, or None when it can."""
    return _tree_problem(hf, _probe_for(hf)) or _tree_problem(hf, _probe_for(hf, long_shapes(hf.config)))


def _tree_problem(hf: PreTrainedModel, batch: Batch) -> str | None:
    try:
        with attention.watch() as seen:
            plain, tree = padded_states(hf, batch), tree_states(hf, batch)
    except attention.Unsupported as reason:
        return str(reason)
    except FAILURES as error:
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
    real = (states := padded_states(hf, batch)).predictor >= 0
    ids = completion_ids(batch)[real.to(batch.ids.device)]
    rows = states.predictor[real]
    width, read = states.hidden.shape[1], hf.get_output_embeddings().in_features
    if width != read:
        return f"its head reads {read} numbers of a state, not the {width} that its layers give"
    size = float(hf.get_output_embeddings()(states.hidden[rows]).float().std())
    with _louder(hf.get_output_embeddings(), LOUD / size if 0 < size < LOUD else 1.0):
        logits = padded_states(hf, batch, logits=True).hidden[rows]
        expected, _ = LogitsHead()(logits, ids, temperature=1.0, entropy=False)
        fused, _ = head(states.hidden[rows], ids, temperature=1.0, entropy=False)
    return _difference("fused and plain log-probs", expected, fused, hf.dtype)


@torch.no_grad()
def routers_problem(hf: PreTrainedModel) -> str | None:
    """Why the balance of `hf`'s routers cannot be told, or None: on padded rows it is what the model's own forward pass says."""
    if not isinstance(getattr(hf, "num_experts_per_tok", None), int):
        return "the model does not say how many experts serve a token"
    batch = _probe_for(hf)
    rows = _rows(batch)
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    try:
        experts = padded_states(hf, batch, routers=True).experts
        own = getattr(hf(input_ids=ids, attention_mask=mask, output_router_logits=True), "aux_loss", None)
    except FAILURES as error:
        return f"its routers cannot be read ({type(error).__name__}: {error})"
    if experts is None or not isinstance(own, Tensor):
        return "its forward pass does not give what its routers said"
    found = balance(experts, experts[0] / row_tokens(batch.layout)) / row_tokens(batch.layout)
    return _difference("its own loss of its routers and that here", own.reshape(1), found.reshape(1), hf.dtype)


@contextmanager
def _louder(head: nn.Module, factor: float) -> Iterator[None]:
    """Inside, the head reads states that are `factor` times as large, whoever calls it."""
    hook = head.register_forward_pre_hook(lambda _, given: (given[0] * factor, *given[1:]))
    try:
        yield
    finally:
        hook.remove()


def _probe_for(hf: PreTrainedModel, shapes: Sequence[tuple[int, Sequence[int]]] = SHAPES) -> Batch:
    text = hf.config.get_text_config()
    named = (getattr(text, "pad_token_id", None), 0)
    special = [i for i in dict.fromkeys(named) if isinstance(i, int) and 0 <= i < text.vocab_size]
    return probe(text.vocab_size, shapes, special).to(next(hf.parameters()).device)


def _difference(what: str, expected: Tensor, found: Tensor, dtype: torch.dtype | None = None) -> str | None:
    """A sentence when two tensors differ by more than the precision allows, relative to the norm of the first."""
    a, b = expected.double(), found.double()
    difference = float((a - b).norm() / a.norm().clamp(min=1e-30))
    tolerance = TOLERANCE[dtype or expected.dtype]
    return None if difference <= tolerance else f"{what} differ by {difference:.1e} (allowed {tolerance:.0e})"
