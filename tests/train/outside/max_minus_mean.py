"""Best-seeking policy gradient: a credit of one's own, and a method that learns by it."""

from torch import Tensor

from evenhand.methods import PROMPTS, Method, method
from evenhand.objectives import PolicyGradient
from evenhand.train.rollouts import Rollouts, credit


@credit("max_minus_mean")
def max_minus_mean(reward: Tensor) -> Tensor:
    """`A_i = max(r) - mean(r)` for the best answer of each group, 0 for the others; NaN (unscored) takes no part."""
    best = reward.nan_to_num(-float("inf")).amax(-1, keepdim=True)
    return (reward == best) * (best - reward.nanmean(-1, keepdim=True))


@method
def best_seeking(*, completions_per_prompt: int = 8) -> Method:
    """REINFORCE on the best answer of each group, weighted by how far it stands above the mean."""
    return Method(
        objective=PolicyGradient(surrogate="reinforce", reduce="sequence_sum"),
        data=PROMPTS,
        rollouts=Rollouts(completions_per_prompt=completions_per_prompt, credit=max_minus_mean),
    )
