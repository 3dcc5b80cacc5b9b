r"""Preference losses that look inside the answers: which tokens count, how likely they were, how far they moved.

`chosen`, `rejected`, `ref_*` are summed log-probs `[B]` where not said otherwise, nats; every loss is unreduced `[B]`. With
`x = beta ((chosen - ref_chosen) - (rejected - ref_rejected))` and `nls(x) = -log sigmoid(x)`:

| loss     | nls of                                             | reduces to `dpo`                |
|----------|----------------------------------------------------|---------------------------------|
| ld_dpo   | x over a common length, alpha of the rest          | at alpha = 1, at equal lengths  |
| sam_po   | x over as many drawn tokens as the shorter has     | at equal lengths                |
| wpo      | x, the loss times how likely the pair is on-policy | where that is 1                 |
| tdpo1    | x - beta (KL of rejected - KL of chosen)           | at policy = reference           |
| tdpo2    | x - beta alpha (KL of rejected - sg(KL of chosen)) | at alpha = 0                    |
| mallows  | dispersion x                                       | at dispersion 1                 |
| odpo     | x - alpha log(gap)                                 | at gap 1, at alpha = 0          |
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from evenhand.core.pair_margin import margin


def ld_dpo(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    mask_chosen: Tensor,
    mask_rejected: Tensor,
    *,
    beta: float,
    alpha: float,
) -> Tensor:
    """`nls(beta D)` with log-probs over the first n tokens plus `alpha` of the others, n the shorter answer's length.

    Length-desensitised DPO (arXiv:2409.06411). All log-probs `[B, C]`, 0 where `mask_*` [B, C] is False. The policy's and
    the reference's tail count alike, as in TRL: with the policy's alone the loss is not log 2 at policy = reference.
    """
    shared = torch.minimum(mask_chosen.sum(-1), mask_rejected.sum(-1))[:, None]

    def total(values: Tensor, mask: Tensor) -> Tensor:
        return (values * torch.where(mask.cumsum(-1) <= shared, 1.0, alpha) * mask).sum(-1)

    a = total(chosen - ref_chosen, mask_chosen)
    return -logsigmoid(beta * (a - total(rejected - ref_rejected, mask_rejected)))


def sam_po(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    mask_chosen: Tensor,
    mask_rejected: Tensor,
    uniform_chosen: Tensor,
    uniform_rejected: Tensor,
    *,
    beta: float,
) -> Tensor:
    """`nls(beta D)` over n drawn tokens of either answer, n the shorter one's length (SamPO, arXiv:2406.10957).

    All tensors `[B, C]`; the n counted tokens with the smallest `uniform_*` are those drawn, the same for policy and reference:
    drawn anew for each, as in public code, the loss would not be log 2 at policy = reference.
    """
    shared = torch.minimum(mask_chosen.sum(-1), mask_rejected.sum(-1))[:, None]

    def total(values: Tensor, mask: Tensor, uniform: Tensor) -> Tensor:
        order = torch.where(mask, uniform, 2.0).argsort(-1).argsort(-1)  # a token's rank among the counted ones
        return torch.where(mask & (order < shared), values, 0.0).sum(-1)

    a = total(chosen - ref_chosen, mask_chosen, uniform_chosen)
    return -logsigmoid(beta * (a - total(rejected - ref_rejected, mask_rejected, uniform_rejected)))


def wpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, alignment: Tensor, *, beta: float) -> Tensor:
    """`min(1, e^alignment) nls(x)`: a pair weighs by how likely the policy gives its answers (WPO, arXiv:2406.11827, eq. 2).

    `alignment` [B], held constant: the mean over tokens of `logp - log sum_v p_v^2`, of both answers added. It can be above 0,
    for tokens likelier than the average draw: the cap at 1 is that of the authors' code, which TRL does not have. Weights are not
    divided by their sum.
    """
    weight = torch.exp(alignment.detach().clamp(max=0.0))
    return -weight * logsigmoid(margin(chosen, rejected, ref_chosen, ref_rejected, beta))


def tdpo1(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    kl_chosen: Tensor,
    kl_rejected: Tensor,
    *,
    beta: float,
) -> Tensor:
    """`nls(x - beta (kl_rejected - kl_chosen))`: token-level DPO, first form (arXiv:2404.11999).

    `kl_*` [B] are KL(reference, policy) of every token's distribution, summed over the answer; they carry gradient.
    """
    return -logsigmoid(margin(chosen, rejected, ref_chosen, ref_rejected, beta) - beta * (kl_rejected - kl_chosen))


def tdpo2(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    kl_chosen: Tensor,
    kl_rejected: Tensor,
    *,
    beta: float,
    alpha: float,
) -> Tensor:
    """`nls(x - beta alpha (kl_rejected - sg(kl_chosen)))`: token-level DPO, second form (arXiv:2404.11999).

    The chosen answer's divergence is compared with, and not pushed. `dpo` at alpha = 0.
    """
    gap = kl_rejected - kl_chosen.detach()
    return -logsigmoid(margin(chosen, rejected, ref_chosen, ref_rejected, beta) - beta * alpha * gap)


def mallows(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, dispersion: Tensor, *, beta: float, scale: float
) -> Tensor:
    """`nls(scale dispersion x)`: MallowsPO (arXiv:2405.14953). Pairs whose answers the reference is sure of count for more.

    `dispersion` [B]: minus the log of the reference's mean entropy as a share of log V.
    """
    return -logsigmoid(scale * dispersion * margin(chosen, rejected, ref_chosen, ref_rejected, beta))


def odpo(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, gap: Tensor, *, beta: float, alpha: float
) -> Tensor:
    """`nls(x - alpha log gap)`: DPO with an offset, the gap of two scores (arXiv:2402.10571).

    `gap` [B] > 0; the margin asked for is *negative* where it is below 1. A soft label's two readings have one gap, its size.
    """
    return -logsigmoid(margin(chosen, rejected, ref_chosen, ref_rejected, beta) - alpha * torch.log(gap.abs()))


def rebel(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, gap: Tensor, *, eta: float) -> Tensor:
    """`(D - eta gap)^2`: regression of relative rewards (REBEL, arXiv:2404.16767), D the difference of the two log-ratios.

    The reference is the policy that wrote the answers. The paper's loss is this one over eta^2. `ipo` at gap 1, eta = 1/(2 tau).
    """
    return margin(chosen, rejected, ref_chosen, ref_rejected, 1.0).sub(eta * gap).square()


def soft_dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, gap: Tensor, *, beta: float) -> Tensor:
    """`p nls(x) + (1 - p) nls(-x)`, p = sigmoid(gap): DPO towards the preference that two scores imply (DNO, arXiv:2404.03715).

    Minimised at beta D = gap. `dpo` for a gap without end.
    """
    x, p = margin(chosen, rejected, ref_chosen, ref_rejected, beta), torch.sigmoid(gap)
    return -p * logsigmoid(x) - (1 - p) * logsigmoid(-x)


def inpo(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    old_chosen: Tensor,
    old_rejected: Tensor,
    *,
    eta: float,
    ratio: float,
) -> Tensor:
    """`(d - ratio d_ref - (1 - ratio) d_old - 1/(2 eta))^2`, d = chosen - rejected: iterative Nash policy optimisation.

    arXiv:2407.00617. `ratio` = tau / eta in (0, 1]: how strongly the reference holds, against the last iterate. `ipo` at ratio 1.
    """
    anchor = ratio * (ref_chosen - ref_rejected) + (1 - ratio) * (old_chosen - old_rejected)
    return (chosen - rejected - anchor - 0.5 / eta).square()
