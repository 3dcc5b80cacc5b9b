"""Hidden states of a batch, on the packed tree or, for models that cannot attend along one, on plain padded rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evenhand.data.batch import paths, predictor_index, token_index
from evenhand.models.rope_length import Sides, start_over
from evenhand.models.routers import asked, rows_of_token, spread
from evenhand.models.tree_attention import Tree
from evenhand.types import Batch, Layout, Span

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class States:
    """`hidden` [R, H] in some order of tokens, and where in it to look.

    `predictor` [N, C] is the row that predicts token t of completion i (-1 at padding), `last` [N] the row of its last token;
    both on the processor. `experts` [2, E]: `routers.spread` over all rows, where it was asked for.
    """

    hidden: Tensor
    predictor: Tensor
    last: Tensor
    experts: Tensor | None = None


def tree_states(hf: PreTrainedModel, batch: Batch, *, routers: bool = False) -> States:
    """One forward pass over the flat sequence; every prompt is computed once."""
    return _by_side(hf, batch, partial(_on_tree, hf, routers=routers))


def padded_states(hf: PreTrainedModel, batch: Batch, *, logits: bool = False, routers: bool = False) -> States:
    """One row per completion: prompt, completion, padding on the right. Correct for every causal model; prompts are repeated.

    With `logits`, the states are the model's own logits [R, V] instead of its hidden states.
    """
    return _by_side(hf, batch, partial(_on_rows, hf, logits=logits, routers=routers))


def _on_tree(hf: PreTrainedModel, batch: Batch, *, routers: bool) -> States:
    tree = Tree(batch.layout, batch.positions)
    # A mask of four dimensions stops transformers from building one.
    unused = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=batch.ids.device)
    out = backbone(hf)(
        input_ids=batch.ids[None],
        position_ids=batch.positions[None],
        attention_mask=unused,
        use_cache=False,
        tree=tree,
        **asked(routers),
    )
    experts = _experts(hf, out, rows_of_token(batch.layout)) if routers else None
    return States(out.last_hidden_state[0], *_tree_index(batch.layout), experts)


def _on_rows(hf: PreTrainedModel, batch: Batch, *, logits: bool, routers: bool) -> States:
    source, predictor, last = _padded_index(batch.layout)
    source = source.to(batch.ids.device)
    mask = source >= 0
    ids = torch.where(mask, batch.ids[source.clamp(min=0)], 0)
    network = hf if logits else backbone(hf)
    out = network(input_ids=ids, attention_mask=mask.long(), **without_cache(network), **asked(routers))
    experts = _experts(hf, out, mask.flatten()) if routers else None
    return States((out.logits if logits else out.last_hidden_state).flatten(0, 1), predictor, last, experts)


def _experts(hf: PreTrainedModel, out: Any, rows: Tensor) -> Tensor | None:
    """Choices and probabilities per expert of one pass; None where its routers said nothing."""
    logits = getattr(out, "router_logits", None)
    return spread(logits, rows, hf.num_experts_per_tok) if logits else None  # type: ignore[arg-type]


def _by_side(hf: PreTrainedModel, batch: Batch, run: Callable[[Batch], States]) -> States:
    """`run` on all of a batch; where rotary frequencies depend on the length, on the rows of each side apart."""
    rule = Sides(hf.config)
    if rule.switch is None:
        return run(batch)
    rows: dict[tuple[int, ...], list[int]] = {}
    for i, (prompt, completion) in enumerate(paths(batch.layout)):
        rows.setdefault(rule.of(prompt.length + completion.length), []).append(i)
    hidden, held, experts = [], 0, list[Tensor]()
    predictor = torch.full(tuple(token_index(batch.layout).shape), -1)
    last = torch.empty(batch.completions, dtype=torch.long)
    for chosen in rows.values():
        start_over(hf)
        part = run(batch if len(rows) == 1 else part_of(batch, chosen))
        width = part.predictor.shape[1]
        predictor[torch.tensor(chosen), :width] = torch.where(part.predictor >= 0, part.predictor + held, -1)
        last[torch.tensor(chosen)] = part.last + held
        hidden.append(part.hidden)
        held += len(part.hidden)
        experts += [part.experts] if part.experts is not None else []
    return States(torch.cat(hidden), predictor, last, torch.stack(experts).sum(0) if experts else None)


def part_of(batch: Batch, rows: list[int]) -> Batch:
    """The completions `rows` of a batch and their prompts: tokens, positions and layout alone."""
    layout, index, prompts, spans, owner = batch.layout, list[int](), list[Span](), list[Span](), list[int]()
    place: dict[int, int] = {}
    for i in rows:
        group, completion = layout.owner[i], layout.completions[i]
        if group not in place:
            place[group] = len(prompts)
            prompts.append(Span(len(index), layout.prompts[group].length))
            index += range(layout.prompts[group].start, layout.prompts[group].stop)
        owner.append(place[group])
        spans.append(Span(len(index), completion.length))
        index += range(completion.start, completion.stop)
    flat = torch.tensor(index, device=batch.ids.device)
    mask = batch.completion_mask[torch.tensor(rows, device=batch.completion_mask.device)]
    part = Layout(tuple(prompts), tuple(spans), tuple(owner))
    return Batch(ids=batch.ids[flat], positions=batch.positions[flat], layout=part, completion_mask=mask)


def backbone(hf: PreTrainedModel) -> nn.Module:
    """The network below the head."""
    body = hf.base_model
    return body if body is not hf else getattr(hf, "model", hf)  # some classes misname their own backbone


def without_cache(network: nn.Module) -> dict[str, bool]:
    """What tells a network to make no cache, where it can be told."""
    return {"use_cache": False} if accepts(type(network).forward, "use_cache") else {}


@lru_cache(maxsize=64)
def accepts(forward: Callable[..., Any], name: str) -> bool:
    """Whether a forward pass may be given a keyword."""
    known = inspect.signature(forward).parameters
    return name in known or any(p.kind is p.VAR_KEYWORD for p in known.values())


@lru_cache(maxsize=256)
def _tree_index(layout: Layout) -> tuple[Tensor, Tensor]:
    return predictor_index(layout), torch.tensor([c.stop - 1 for c in layout.completions])


@lru_cache(maxsize=256)
def _padded_index(layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Flat position of every cell of the padded rows [N, L], -1 at padding; and predictor [N, C], last [N] into the cells."""
    rows = paths(layout)
    width = max(p.length + c.length for p, c in rows)
    cells = torch.full((len(rows), width), -1)
    column = torch.arange(int(token_index(layout).shape[1]))
    predictor = torch.full((len(rows), len(column)), -1)
    for i, (p, c) in enumerate(rows):
        cells[i, : p.length] = torch.arange(p.start, p.stop)
        cells[i, p.length : p.length + c.length] = torch.arange(c.start, c.stop)
        predictor[i, : c.length] = i * width + p.length - 1 + column[: c.length]
    last = torch.tensor([i * width + p.length + c.length - 1 for i, (p, c) in enumerate(rows)])
    return cells, predictor, last
