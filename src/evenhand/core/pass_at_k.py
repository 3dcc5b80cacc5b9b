"""Advantages whose objective is the best of k answers: pass@k for rewards 0 and 1, max@k for any.

`reward` `[P, G]`, NaN = unscored; a group with fewer than k scored completions gets 0. Averaged over completions, as the
reduction `sequence_sum` does, `A_i grad log pi(y_i)` is unbiased for the gradient of the expected best of k where it says so.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import torch
from torch import Tensor

from evenhand.errors import UserError


def max_at_k(reward: Tensor, *, k: int) -> Tensor:
    """`A_i = k E_T[(r_i - max T)+]`, T any k - 1 others: the gain by answer i. PKPO, baseline left out (arXiv:2505.15201).

    For rewards 0 and 1 with c right of n: `k C(n - c, k - 1) / C(n - 1, k - 1)` for a right answer, 0 for a wrong one. Unbiased
    for the gradient of the expected maximum of k. At k = 1 the reward itself; at k = G, G times `max_minus_second`.

    >>> max_at_k(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), k=2)
    tensor([[1.3333, 0.0000, 0.0000, 1.3333]])
    """
    return _by_group(reward, k, lambda r: _gain(r, k))


def inclusive_max_at_k(reward: Tensor, *, k: int) -> Tensor:
    """`A_i = k E_T[max(r_i, max T)]`, T any k - 1 others. PKPO without a baseline (arXiv:2505.15201, eq. 13).

    For rewards 0 and 1: k for a right answer, `k rho(n - 1, c, k - 1)` for a wrong one, rho(n, c, k) = 1 - C(n - c, k) / C(n, k).
    Unbiased as `max_at_k`, which is this less the expected maximum of k - 1 others, of less variance. At k = 1 the reward itself.

    >>> inclusive_max_at_k(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), k=2)
    tensor([[2.0000, 1.3333, 1.3333, 2.0000]])
    """
    return _by_group(reward, k, lambda r: _best(r, k))


def max_minus_second(reward: Tensor) -> Tensor:
    """`A_i = r_1 - r_2` for the best of a group, 0 for the others (arXiv:2503.19595, with k the whole group).

    Averaged over G completions it is 1/G of the gradient of the expected maximum of G: `max_at_k` at k = G but for that factor.
    Two equal bests teach nothing. Dividing by the group's deviation, as verl does, makes it another objective.

    >>> max_minus_second(torch.tensor([[1.0, 4.0, float("nan"), 1.5]]))
    tensor([[0.0000, 2.5000, 0.0000, 0.0000]])
    """
    if reward.shape[-1] < 2:
        return torch.zeros_like(reward)
    known = reward.nan_to_num(-torch.inf)
    (best, second), place = known.topk(2, dim=-1).values.unbind(-1), known.argmax(-1, keepdim=True)
    gap = torch.where(second > -torch.inf, best - second, 0.0)
    return torch.zeros_like(reward).scatter(-1, place, gap.unsqueeze(-1))


def pass_at_k_z(reward: Tensor, *, k: int) -> Tensor:
    """`(R_i - rho) / sqrt(rho (1 - rho))`, R_i the share of k-subsets with i that pass. Pass@k training (2508.10751).

    c right of n, `rho = 1 - C(n - c, k) / C(n, k)`: a right answer has R = 1, a wrong one `1 - C(n - c - 1, k - 1) / C(n - 1, k
    - 1)`. 0 where every subset passes, or none. Not unbiased: without the deviation the group's sum is (n - k) / k times the
    gradient of pass@k, nothing at k = n.

    Raises: UserError for a reward other than 0 and 1.
    """
    if bool(((reward != 0) & (reward != 1) & ~reward.isnan()).any()):
        raise UserError(
            "a reward is neither 0 nor 1", where="advantage pass_at_k_training", why="it counts the answers that are right",
            fix="use a verifiable reward, or `pass_at_k`, which takes any",
        )  # fmt: skip
    return _by_group(reward, k, lambda r: _subsets(r, k))


def _by_group(reward: Tensor, k: int, advantage: Callable[[Tensor], Tensor]) -> Tensor:
    """`advantage` of every group's scored rewards [n], n >= k."""
    if k < 1:
        raise UserError(f"k is {k}", where="pass_at_k", fix="use the best of at least 1")
    out = torch.zeros_like(reward)
    for row, place in zip(reward, out, strict=True):
        known = ~row.isnan()
        if int(known.sum()) >= k:
            place[known] = advantage(row[known])
    return out


def _share(top: int, bottom: int, n: int, k: int) -> float:
    """C(top, bottom) / C(n - 1, k - 1), exactly before it is rounded; 0 outside of the triangle."""
    return comb(top, bottom) / comb(n - 1, k - 1) if 0 <= bottom <= top else 0.0


def _gain(r: Tensor, k: int) -> Tensor:
    n = len(r)
    if k == 1:
        return r
    ascending, order = r.sort()
    best = r.new_tensor([_share(j, k - 2, n, k) for j in range(n)])  # the best of k - 1 others is the j-th of those below i
    gain = (ascending[:, None] - ascending[None, :]).clamp(min=0) * best  # a tie gains exactly nothing
    return torch.empty_like(r).scatter(0, order, k * gain.tril(-1).sum(-1))


def _best(r: Tensor, k: int) -> Tensor:
    n = len(r)
    if k == 1:
        return r
    ascending, order = r.sort()
    itself = r.new_tensor([_share(i, k - 1, n, k) for i in range(n)])
    above = r.new_tensor([_share(j - 1, k - 2, n, k) if j else 0.0 for j in range(n)]) * ascending
    rest = above.flip(0).cumsum(0).flip(0) - above
    return torch.empty_like(r).scatter(0, order, k * (ascending * itself + rest))


def _subsets(r: Tensor, k: int) -> Tensor:
    n, right = len(r), int(r.sum())
    passed = 1 - comb(n - right, k) / comb(n, k)
    if passed in (0.0, 1.0):
        return torch.zeros_like(r)
    wrong = 1 - _share(n - right - 1, k - 1, n, k)
    return (wrong + (1 - wrong) * r - passed) / (passed * (1 - passed)) ** 0.5
