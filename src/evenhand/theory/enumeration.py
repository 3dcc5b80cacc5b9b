"""The five-answer bandit: its data, exact expectations over samples, pairs and groups, and the known optima."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.optimize import brentq
from torch import Tensor

from evenhand.theory.optimum import climb, minimise

REWARD = torch.tensor([1.0, 0.0, -0.5, 0.6, 0.3], dtype=torch.float64)
REF = torch.tensor([0.10, 0.30, 0.25, 0.15, 0.20], dtype=torch.float64).log()
DRAW = torch.tensor([0.25, 0.15, 0.20, 0.10, 0.30], dtype=torch.float64)
"""How offline data draw their answers: neither the reference nor the policy."""
TOKENS = torch.tensor([3.0, 1.0, 2.0, 5.0, 2.0], dtype=torch.float64)
PREFERENCE = torch.sigmoid(REWARD.unsqueeze(-1) - REWARD)
"""`[i, j]`: probability that answer i is preferred to answer j (Bradley-Terry)."""
BETA, FLIP, TAU = 0.5, 0.1, 0.4


def pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """`[5]` as (chosen, rejected) over all ordered pairs, [5, 5] each."""
    return torch.broadcast_tensors(x.unsqueeze(-1), x.unsqueeze(-2))


def drawn() -> Tensor:
    """Chance of each ordered pair of different answers, [5, 5]."""
    return (DRAW.unsqueeze(-1) * DRAW) * (1 - torch.eye(5, dtype=torch.float64))


def fit(loss: Callable[..., Tensor], labels: Tensor = PREFERENCE) -> Tensor:
    """Log-probs that minimise the expected pair loss; `labels[i, j]` = probability that i is called better than j."""
    weight, ref = labels * drawn(), pairs(REF)
    trained = minimise(lambda x: (weight * loss(*pairs(x.log_softmax(-1)), *ref)).sum(), REF)
    return trained.log_softmax(-1)


def tilted(exponent: Tensor) -> Tensor:
    """log of ref exp(exponent), normalised: where every KL-regularised objective belongs."""
    return (REF + exponent).log_softmax(-1)


def normalised(logp: Callable[[float], Tensor]) -> Tensor:
    """`logp(c)` at the c that makes it a distribution; increasing in c."""
    level = brentq(lambda c: logp(c).exp().sum().item() - 1, -50.0, 50.0, xtol=1e-14)
    return logp(level)


def forward_kl_point(beta: float) -> Tensor:
    """pi_a = ref_a beta / (beta + m - r_a), m = E_pi[r]: where pi_a (r_a - m) = beta (pi_a - ref_a).

    The m that makes it sum to 1 is also its mean reward (sum the line above over a).
    """

    def point(mean: float) -> Tensor:
        return REF.exp() * beta / (beta + mean - REWARD)

    low = REWARD.max().item() - beta
    mean = brentq(lambda m: point(m).sum().item() - 1, low + 1e-9, low + 50.0, xtol=1e-14)
    return point(mean).log()


def best_answer() -> Tensor:
    """All mass on the highest reward: 0 there, -inf elsewhere."""
    return torch.where(REWARD.max() == REWARD, 1.0, 0.0).double().log()


def climb_from_ref(surrogate: Callable[[Tensor], Tensor], *, step: float = 1.0, rounds: int = 60) -> Tensor:
    """`climb` from the reference. At step 1/beta a KL-regularised policy gradient is there in one round."""
    return climb(surrogate, REF, step=step, rounds=rounds)


def expected(logp: Tensor, loss: Tensor) -> Tensor:
    """Mean of a per-answer loss over samples of the policy; the sampling itself is not differentiated."""
    return (logp.detach().exp() * loss).sum()


def all_groups(logp: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Every group of `size` answers [5^size, size], and its chance under the policy, a constant."""
    groups = torch.cartesian_prod(*[torch.arange(5)] * size)
    return groups, logp.detach()[groups].sum(-1).exp()


def expected_groups(logp: Tensor, size: int, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over groups of the mean over a group's completions of `loss(groups)` [5^size, size]."""
    groups, chance = all_groups(logp, size)
    return (chance * loss(groups).mean(-1)).sum()
