r"""Losses over all k answers of a prompt at once, each with a reward. Groups lie flat: `owner` [N] names each answer's prompt.

`u = logp - ref_logp` [N] in nats, `reward` [N]; within each group `w = softmax(reward / alpha)`, `log q = log softmax(beta u)`.
Every function returns one value per answer [N], whose sum over a group is its loss, lower is better.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def log_softmax_within(values: Tensor, owner: Tensor) -> Tensor:
    """`log softmax` [N] of the values within each group. `owner` [N] int from 0; nothing of a value far away is lost.

    >>> log_softmax_within(torch.tensor([0.0, 0.0, 7.0]), torch.tensor([0, 0, 1])).exp()
    tensor([0.5000, 0.5000, 1.0000])
    """
    theirs = torch.where(_same(owner), values[None, :], -torch.inf)
    return values - theirs.logsumexp(-1)


def infonca(u: Tensor, reward: Tensor, owner: Tensor, *, beta: float, alpha: float) -> Tensor:
    """`-w_k log q_k`: InfoNCA (arXiv:2402.05369), the cross-entropy of the policy's softmax with the rewards'.

    Minimised where beta u is reward / alpha up to a constant of the prompt. `dpo` for two answers as alpha -> 0.
    """
    w = log_softmax_within(reward / alpha, owner).exp()
    return -w * log_softmax_within(beta * u, owner)


def nca(u: Tensor, reward: Tensor, owner: Tensor, *, beta: float, alpha: float) -> Tensor:
    """`-w_k log s(beta u_k) - log s(-beta u_k) / k`: NCA of k answers (arXiv:2402.05369), against noise.

    The level of every answer is pinned: minimised at beta u = log(k w). The first term is a sum and the second a mean, as in the
    authors' code. `nca_pair` for two answers as alpha -> 0.
    """
    w = log_softmax_within(reward / alpha, owner).exp()
    return -w * logsigmoid(beta * u) - logsigmoid(-beta * u) / _size(owner)


def qrpo(u: Tensor, reward: Tensor, owner: Tensor, *, beta: float) -> Tensor:
    """`(q - beta log Z - beta u)^2`, averaged over a group: quantile reward policy optimisation (arXiv:2507.08068).

    q is the share of the group's rewards that are at most the answer's: its quantile under the reference, if the reference wrote
    the group. Quantiles are uniform there, so that `Z = beta (e^(1/beta) - 1)` is known and no pair is needed.
    """
    quantile = (_same(owner) & (reward[None, :] <= reward[:, None])).sum(-1) / _size(owner)
    return (quantile - log_partition(beta) - beta * u).square() / _size(owner)


def log_partition(beta: float) -> float:
    """`beta log(beta (e^(1/beta) - 1))`: the soft value of a reward that is uniform on [0, 1]; exact for every beta.

    >>> round(log_partition(1.0), 4), round(log_partition(1e-3), 4)
    (0.5413, 0.9931)
    """
    return 1 + beta * (math.log(beta) + math.log1p(-math.exp(-1 / beta)))


def reward_regression(u: Tensor, advantage: Tensor, *, beta: float) -> Tensor:
    """`(beta u - A)^2` [N]: the log-ratio regresses on the advantage over a soft value (A*-PO, arXiv:2505.20686).

    Minimised by the tilted reference `ref exp(r / beta) / Z` exactly where A is r less its soft value.
    """
    return (beta * u - advantage).square()


def direct_reward(u: Tensor, reward: Tensor, value: Tensor, *, tau: float) -> Tensor:
    """`(r - V - tau u)^2 / 2` [N]: direct reward optimisation, DRO-V (arXiv:2405.19107).

    u are the log-ratios to the reference, V the soft value of the prompt, learned by the same square. Minimised by
    `ref exp((r - V) / tau)`: one answer per prompt is enough, where a pair's difference needs no V. With V at its own minimum,
    the mean of `r - tau u`, two answers have a quarter of `(r_1 - r_2 - tau (u_1 - u_2))^2` each over two: `rebel`'s square.

    >>> direct_reward(torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([0.5]), tau=0.5)
    tensor([0.1250])
    """
    return (reward - value - tau * u).square() / 2


def _same(owner: Tensor) -> Tensor:
    """Which answers have one prompt, [N, N]."""
    return owner[:, None] == owner[None, :]


def _size(owner: Tensor) -> Tensor:
    """The number of answers in each answer's group [N]."""
    return _same(owner).sum(-1)
