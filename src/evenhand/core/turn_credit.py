"""Credit by turn: answers over several turns whose rewards come on the way.

`reward` is `[P, G, K]`: the reward of turn k of answer g to prompt p; NaN where an answer has no such turn or was not scored.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def to_go(reward: Tensor, *, gamma: float = 1.0) -> Tensor:
    """`G_k = r_k + gamma G_{k+1}` [P, G, K]: what an answer still earns from turn k on; NaN where there is no such turn.

    >>> to_go(torch.tensor([[[1.0, 0.0, 2.0]]]), gamma=0.5)
    tensor([[[1.5000, 1.0000, 2.0000]]])
    """
    out, ahead = torch.full_like(reward, torch.nan), torch.zeros_like(reward[..., 0])
    present = ~reward.isnan()
    for k in reversed(range(reward.shape[-1])):
        ahead = torch.where(present[..., k], reward[..., k].nan_to_num(0.0) + gamma * ahead, ahead)
        out[..., k] = torch.where(present[..., k], ahead, torch.nan)
    return out


def by_turn(reward: Tensor, function: Callable[[Tensor], Tensor], *, gamma: float = 1.0) -> Tensor:
    """`A_k = f(G_k)` with G_k the reward-to-go: turn k against turn k of the other answers to the prompt.

    `function` is a credit of rewards [P, G], such as `core.credit.centre`; it sees each turn as a group of its own, and an answer
    that has no such turn as unscored. A turn that only one answer has is compared with none, and gets 0. Reduces to
    `function` with one turn; with all reward in the last turn, equally many turns and gamma = 1 every turn gets the answer's
    advantage.

    >>> from evenhand.core.credit import centre
    >>> by_turn(torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]), centre)
    tensor([[[ 1.0000,  0.5000],
             [-1.0000, -0.5000]]])
    """
    prompts, answers, turns = reward.shape
    each = to_go(reward, gamma=gamma).movedim(-1, 1).reshape(prompts * turns, answers)
    return function(each).reshape(prompts, turns, answers).movedim(1, -1)
