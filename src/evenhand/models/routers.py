"""How evenly the routers of a mixture of experts spread tokens: what the load-balancing loss of a step is made of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from evenhand.data.batch import paths
from evenhand.types import Layout


def configured_weight(config: Any) -> float | None:
    """The weight of the load-balancing loss that transformers adds by this config; None where it adds none."""
    text = config.get_text_config()
    weight = getattr(text, "router_aux_loss_coef", None)
    return float(weight) if getattr(text, "output_router_logits", False) and weight else None


def asked(routers: bool) -> dict[str, bool]:
    """What tells a forward pass to keep the logits of its routers."""
    return {"output_router_logits": True} if routers else {}


def spread(logits: Sequence[Tensor], rows: Tensor, chosen: int) -> Tensor:
    """Choices and probabilities per expert [2, E], summed over tokens and averaged over layers; additive over micro-batches.

    `logits`: one [R, E] per layer; `rows` [R] says how often a token counts (0: padding); `chosen` experts serve a token.
    Choices have no gradient.
    """
    choices, mass = [], []
    for layer in logits:
        p = layer.flatten(0, -2).float().softmax(-1)
        weight = rows.to(p)[:, None]
        hits = torch.zeros_like(p).scatter_(1, p.detach().topk(chosen, dim=-1).indices, 1.0)
        choices.append((hits * weight).sum(0))
        mass.append((p * weight).sum(0))
    return torch.stack([torch.stack(choices).mean(0), torch.stack(mass).mean(0)])


def balance(experts: Tensor, share: Tensor) -> Tensor:
    """E sum_e f_e m_e: with the step's share f [E] of choices and m the summed probabilities (`experts[1]`), divided by the
    tokens, the loss of Switch Transformer (Fedus et al. 2021, equations 4 to 6) with all chosen experts counted, over all
    layers at once, as transformers' `load_balancing_loss_func` has it. 1 per chosen expert where all are served alike."""
    return len(share) * (share * experts[1]).sum()


@lru_cache(maxsize=256)
def rows_of_token(layout: Layout) -> Tensor:
    """How many rows (a prompt and one of its completions) each token of the flat sequence [T] stands in."""
    rows = torch.ones(layout.total)
    for number, prompt in enumerate(layout.prompts):
        rows[prompt.start : prompt.stop] = layout.owner.count(number)
    return rows


def row_tokens(layout: Layout) -> int:
    """Tokens of all rows, prompts counted in each."""
    return sum(prompt.length + completion.length for prompt, completion in paths(layout))
