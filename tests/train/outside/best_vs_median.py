"""Online DPO on the best answer of each group against its median: a selection of one's own, and a method that learns by it."""

import torch
from torch import Tensor

from evenhand.methods import PROMPTS, Method, method
from evenhand.objectives import Pairwise
from evenhand.train.rollouts import Rollouts, selection
from evenhand.train.rollouts.selections import Draw


@selection("best_vs_median")
def best_vs_median(scores: Tensor, draw: Draw) -> Tensor:
    """The best of each group against its median answer."""
    order = (scores + 1e-9 * draw("ties")).argsort(-1, descending=True)
    pairs = order[:, [0, scores.shape[1] // 2]]
    differ = scores.gather(1, pairs).diff(dim=1).flatten() != 0
    return (torch.arange(len(scores))[:, None] * scores.shape[1] + pairs)[differ]


@method
def median_dpo(*, completions_per_prompt: int = 4, beta: float = 0.1) -> Method:
    """DPO on the best of each group against its median answer."""
    return Method(
        objective=Pairwise(loss="dpo", parameters={"beta": beta}),
        data=PROMPTS,
        rollouts=Rollouts(completions_per_prompt=completions_per_prompt, credit=best_vs_median),
        reference="start",
    )
