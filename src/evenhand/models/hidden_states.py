"""Hidden states of a batch, on the packed tree or, for models that cannot attend along one, on plain padded rows."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evenhand.data.batch import predictor_index, token_index
from evenhand.models.tree_attention import Tree
from evenhand.types import Batch, Layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class States:
    """`hidden` [R, H] in some order of tokens, and where in it to look.

    `predictor` [N, C] is the row that predicts token t of completion i (-1 at padding), `last` [N] the row of its last token;
    both on the processor.
    """

    hidden: Tensor
    predictor: Tensor
    last: Tensor


def tree_states(hf: PreTrainedModel, batch: Batch) -> States:
    """One forward pass over the flat sequence; every prompt is computed once."""
    tree = Tree(batch.layout, batch.positions)
    # A mask of four dimensions stops transformers from building one.
    unused = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=batch.ids.device)
    hidden = backbone(hf)(
        input_ids=batch.ids[None],
        position_ids=batch.positions[None],
        attention_mask=unused,
        use_cache=False,
        tree=tree,
    ).last_hidden_state[0]
    return States(hidden, *_tree_index(batch.layout))


def padded_states(hf: PreTrainedModel, batch: Batch, *, logits: bool = False) -> States:
    """One row per completion: prompt, completion, padding on the right. Correct for every causal model; prompts are repeated.

    With `logits`, the states are the model's own logits [R, V] instead of its hidden states.
    """
    source, predictor, last = _padded_index(batch.layout)
    source = source.to(batch.ids.device)
    mask = source >= 0
    ids = torch.where(mask, batch.ids[source.clamp(min=0)], 0)
    network = hf if logits else backbone(hf)
    named = {"use_cache": False} if _accepts(type(network), "use_cache") else {}
    out = network(input_ids=ids, attention_mask=mask.long(), **named)
    return States((out.logits if logits else out.last_hidden_state).flatten(0, 1), predictor, last)


def backbone(hf: PreTrainedModel) -> nn.Module:
    """The network below the head."""
    body = hf.base_model
    return body if body is not hf else getattr(hf, "model", hf)  # some classes misname their own backbone


@lru_cache(maxsize=64)
def _accepts(cls: type[nn.Module], name: str) -> bool:
    known = inspect.signature(cls.forward).parameters
    return name in known or any(p.kind is p.VAR_KEYWORD for p in known.values())


@lru_cache(maxsize=256)
def _tree_index(layout: Layout) -> tuple[Tensor, Tensor]:
    return predictor_index(layout), torch.tensor([c.stop - 1 for c in layout.completions])


@lru_cache(maxsize=256)
def _padded_index(layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Flat position of every cell of the padded rows [N, L], -1 at padding; and predictor [N, C], last [N] into the cells."""
    paths = [(layout.prompts[g], c) for g, c in zip(layout.owner, layout.completions, strict=True)]
    width = max(p.length + c.length for p, c in paths)
    cells = torch.full((len(paths), width), -1)
    column = torch.arange(int(token_index(layout).shape[1]))
    predictor = torch.full((len(paths), len(column)), -1)
    for i, (p, c) in enumerate(paths):
        cells[i, : p.length] = torch.arange(p.start, p.stop)
        cells[i, p.length : p.length + c.length] = torch.arange(c.start, c.stop)
        predictor[i, : c.length] = i * width + p.length - 1 + column[: c.length]
    last = torch.tensor([i * width + p.length + c.length - 1 for i, (p, c) in enumerate(paths)])
    return cells, predictor, last
