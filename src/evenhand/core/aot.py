"""AOT: alignment by optimal transport (arXiv:2406.05882). Two *distributions* are compared, by their sorted log-ratios.

A sort belongs to the whole optimizer step: sorting each micro-batch is a weaker objective. The exact two-pass form gathers
all log-probs without gradient, asks `aot_of_pairs` for one weight per answer, and differentiates in any order of micro-batches
`sum(weight_chosen * chosen + weight_rejected * rejected)`, whose gradient is that of `aot_*(...).sum()` through the global sort.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def aot_unpaired(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`nls(beta (a_i - b_i))`, a and b the sorted log-ratios of the chosen and of the rejected answers.

    Summed log-probs of a whole step, `[B]`, or `[W]` chosen against `[L]` rejected: b is then the empirical quantile function
    of the rejected at the chosen's levels, linearly interpolated. Returns `[W]` in order of a. Ignores who was paired with
    whom, and is never above the mean `dpo` loss of any pairing of the same answers; `dpo` itself at B = 1.
    """
    better = torch.sort(chosen - ref_chosen, stable=True).values
    low, high, share = _levels(len(rejected), better)
    worse = torch.sort(rejected - ref_rejected, stable=True).values
    return -logsigmoid(beta * (better - torch.lerp(worse[low], worse[high], share)))


def aot_paired(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`nls(beta (a_i - b_i))`, a = sorted policy margins (chosen - rejected), b = sorted reference margins.

    Summed log-probs of a whole step, `[B]` each; returns `[B]` in order of a. `dpo` itself at B = 1.
    """
    policy = torch.sort(chosen - rejected, stable=True).values
    reference = torch.sort(ref_chosen - ref_rejected).values
    return -logsigmoid(beta * (policy - reference))


@torch.no_grad()
def aot_of_pairs(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, weight: Tensor, *, form: str, beta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """AOT where pairs weigh `weight` [B] >= 0 (rankings, soft labels): two weighted distributions, coupled by their quantiles.

    Returns, [B] each and without gradient: the loss `sum of mass * nls(beta (a - b))` spread over the sorted a, and its gradient
    by `chosen` and by `rejected` in the order of the inputs. `form` is `unpaired` or `paired`. At equal weights of 1 these are
    `aot_*(...)` and the gradient of its sum. Pairs that all count both ways by halves (labels of 1/2) say nothing: gradient 0.
    """
    paired = form == "paired"
    better, order_a = torch.sort(chosen - (rejected if paired else ref_chosen), stable=True)
    worse, order_b = torch.sort((ref_chosen if paired else rejected) - ref_rejected, stable=True)
    i, j, mass = _coupling(weight[order_a], weight[order_b])
    margin = beta * (better[i] - worse[j])
    zero, mass = torch.zeros_like(better), mass.to(better.dtype)
    pull = mass * beta * torch.sigmoid(-margin)
    value = zero.index_add(0, i, -mass * logsigmoid(margin))
    by_chosen = _unsort(zero.index_add(0, i, -pull), order_a)
    return value, by_chosen, -by_chosen if paired else _unsort(zero.index_add(0, j, pull), order_b)


def _coupling(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which of two sorted samples' members share how much mass: `(i, j, mass)` over the union of their cumulative weights [B]."""
    one, two = (w.double().cumsum(0) for w in (first, second))
    two = two * (one[-1] / two[-1])  # the same weights in another order: equal but for rounding
    edge = torch.unique(torch.cat([one, two]))
    mass = torch.diff(edge, prepend=edge.new_zeros(1))
    middle, last = edge - mass / 2, len(one) - 1
    return torch.searchsorted(one, middle).clamp(max=last), torch.searchsorted(two, middle).clamp(max=last), mass


def _levels(count: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the quantile levels (i + 1/2) / W of `like` [W] fall among `count` sorted values: lower, upper, share of the upper.

    At equal counts level i falls on value i, so the quantile function is the sort.
    """
    rank = torch.arange(len(like), device=like.device, dtype=torch.float64)
    place = ((rank + 0.5) * count / len(like) - 0.5).clamp(0, count - 1)
    low = place.floor().long()
    return low, (low + 1).clamp(max=count - 1), (place - low).to(like.dtype)


def _unsort(value: Tensor, order: Tensor) -> Tensor:
    return torch.empty_like(value).index_copy(0, order, value)
