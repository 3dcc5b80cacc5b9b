r"""DPO under another divergence than the reverse KL: what stands for the log-ratio in the implicit reward.

For a penalty `D_f(policy, reference)` the implicit reward is `beta f'(u)`, u = policy / reference (arXiv:2309.16240); with
`a = log u` of the chosen and `b` of the rejected answer the loss is `nls(beta (f'(e^a) - f'(e^b)))`, unreduced `[B]`:

| divergence          | f'(e^a)                         | at 0: slope by a | bounded                  |
|---------------------|---------------------------------|------------------|--------------------------|
| reverse KL: `dpo`   | a                               | -beta/2          | no                       |
| forward KL          | -e^-a                           | -beta/2          | above, by 0              |
| Jensen-Shannon      | log s(a) (+ log 2)              | -beta/4          | above, by log 2          |
| alpha in (0, 1)     | (1 - e^(-alpha a)) / alpha      | -beta/2          | above, by 1/alpha        |
| chi^2 + KL: `chi_po`| e^a + a                         | -beta            | no                       |

alpha -> 0 is the reverse, alpha -> 1 the forward KL (shifted by 1). Where it is bounded above, a chosen answer stops being pushed
up. Exponentials go on as their tangent beyond an exponent of 20.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import logsigmoid

from evenhand.core import stable


def f_dpo_forward_kl(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`nls(beta (e^-b - e^-a))`: f-DPO under the forward KL (arXiv:2309.16240, table 1)."""
    a, b = chosen - ref_chosen, rejected - ref_rejected
    return -logsigmoid(beta * (stable.exp(-b) - stable.exp(-a)))


def f_dpo_jensen_shannon(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`nls(beta (log s(a) - log s(b)))`: f-DPO under the Jensen-Shannon divergence (arXiv:2309.16240, table 1)."""
    a, b = chosen - ref_chosen, rejected - ref_rejected
    return -logsigmoid(beta * (logsigmoid(a) - logsigmoid(b)))


def f_dpo_alpha(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, alpha: float
) -> Tensor:
    """`nls(beta (e^(-alpha b) - e^(-alpha a)) / alpha)`: f-DPO under an alpha divergence, alpha in (0, 1) (arXiv:2309.16240).

    TRL's `f_alpha_divergence_coef` is 1 - alpha.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies in (0, 1), the reverse and the forward KL at its ends; got {alpha}")
    a, b = chosen - ref_chosen, rejected - ref_rejected
    return -logsigmoid(beta * (stable.exp(-alpha * b) - stable.exp(-alpha * a)) / alpha)


def chi_po(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, limit: float = math.inf
) -> Tensor:
    """`nls(clip(beta (phi(a) - phi(b)), +-limit))`, phi(t) = e^t + t: chi^2-regularised DPO (arXiv:2407.13399).

    `limit` is twice the largest reward; outside of it a pair has no gradient. Near the reference it is `dpo` at 2 beta.
    """
    a, b = chosen - ref_chosen, rejected - ref_rejected
    margin = beta * (stable.exp(a) + a - stable.exp(b) - b)
    return -logsigmoid(margin.clamp(-limit, limit) if math.isfinite(limit) else margin)
