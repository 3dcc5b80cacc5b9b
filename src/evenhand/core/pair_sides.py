r"""Preference losses that look at each answer's own log-ratio, not at their difference alone.

Inputs are those of `core.preference`. With `a = chosen - ref_chosen`, `b = rejected - ref_rejected`, `x = beta (a - b)`, `s` the
sigmoid and `nls(z) = -log s(z)`; unreduced `[B]`, lower is better. Adding one constant to a and b changes most of these.

| loss     | of a, b                                          | at 0         | dL/da, dL/db in beta |
|----------|--------------------------------------------------|--------------|----------------------|
| nca      | nls(beta a) + nls(-beta a)/2 + nls(-beta b)/2    | 2 log 2      | -1/4, +1/4           |
| bco      | nls(beta a - shift) + nls(shift - beta b)        | 2 log 2      | -1/2, +1/2           |
| sppo     | (a - 1/(2 beta))^2 + (b + 1/(2 beta))^2          | 1/(2 beta^2) |                      |
| apo_zero | s(-beta a) + s(beta b)                           | 1            | -1/4, +1/4           |
| apo_down | s(beta a) + s(-x)                                | 1            | 0, +1/4              |
| cal      | nls(a - b) + weight sppo                         |              |                      |
| c2       | nls(x) + weight (a + b)^2                        | log 2        | -1/2, +1/2           |
| positive | nls(beta (a - b - weight max(0, -a)))            | log 2        | -1/2, +1/2           |
| balanced | nls(min(beta a, -alpha beta b))                  | log 2        | tie                  |
| minor    | nls(beta (a - max(0, b)))                        | log 2        | -1/2, 0              |
| shift    | nls(beta (a - share b))                          | log 2        | -1/2, +share/2       |
| calibrated | nls(x) + weight beta a                         | log 2        | weight - 1/2, +1/2   |

`entropy_scaled` weighs the policy's own margin by alpha.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu


def nca(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`nls(beta a) + nls(-beta a) / 2 + nls(-beta b) / 2`: noise-contrastive alignment of a pair (arXiv:2402.05369).

    The chosen answer's reward has a finite optimum, beta a = log 2; the rejected one's has none.
    """
    a, b = beta * (chosen - ref_chosen), beta * (rejected - ref_rejected)
    return -logsigmoid(a) - 0.5 * logsigmoid(-a) - 0.5 * logsigmoid(-b)


def bco_pair(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, shift: float | Tensor = 0.0
) -> Tensor:
    """`nls(beta a - shift) + nls(shift - beta b)`: a binary classifier of chosen and rejected (BCO, arXiv:2404.04656).

    `shift` [] or a number, held constant: the mean reward so far; 0 in TRL since 1.0. An upper bound of DPO's loss.
    """
    return -logsigmoid(beta * (chosen - ref_chosen) - shift) - logsigmoid(shift - beta * (rejected - ref_rejected))


def sppo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`(a - 1/(2 beta))^2 + (b + 1/(2 beta))^2`: SPPO where the winner wins for certain (arXiv:2405.00675, eq. 4.7).

    IPO's kind of target on either answer: minimised at a = 1/(2 beta) = -b, in nats of the whole answer. The authors' code halves
    the sum.
    """
    return (chosen - ref_chosen - 0.5 / beta).square() + (rejected - ref_rejected + 0.5 / beta).square()


def apo_zero(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`s(-beta a) + s(beta b)`: anchored preference optimisation for answers better than the model's (arXiv:2408.06266, eq. 7).

    `kto` with z0 = 0 on the two labels of a pair.
    """
    return torch.sigmoid(-beta * (chosen - ref_chosen)) + torch.sigmoid(beta * (rejected - ref_rejected))


def apo_down(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`s(beta a) + s(-beta (a - b))`: anchored, for a model that is better than both answers (arXiv:2408.06266, eq. 8).

    Both answers fall, the rejected one further; the chosen one's slope is 0 wherever b = 0.
    """
    a, b = chosen - ref_chosen, rejected - ref_rejected
    return torch.sigmoid(beta * a) + torch.sigmoid(-beta * (a - b))


def cal_dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, weight: float) -> Tensor:
    """`nls(a - b) + weight [(a - 1/(2 beta))^2 + (b + 1/(2 beta))^2]`: Cal-DPO (arXiv:2412.14516). No beta inside nls.

    The squares pin the level of the implicit rewards, which DPO leaves free: they are those of `sppo`.
    """
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    return -logsigmoid(margin) + weight * sppo(chosen, rejected, ref_chosen, ref_rejected, beta=beta)


def c2_dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, weight: float) -> Tensor:
    """`nls(beta (a - b)) + weight (a + b)^2`: the two answers' log-ratios must balance (arXiv:2502.17507, log-l2 form).

    So that both cannot fall together. `dpo` at weight = 0.
    """
    a, b = chosen - ref_chosen, rejected - ref_rejected
    return -logsigmoid(beta * (a - b)) + weight * (a + b).square()


def positive(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, weight: float) -> Tensor:
    """`nls(beta (a - b - weight max(0, -a)))`: DPO-Positive (arXiv:2402.13228), which punishes a fall of the chosen answer.

    While a < 0 the chosen answer's slope is 1 + weight times DPO's; from a = 0 on it is `dpo` exactly.
    """
    a, b = chosen - ref_chosen, rejected - ref_rejected
    return -logsigmoid(beta * (a - b - weight * relu(-a)))


def balanced(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, alpha: float) -> Tensor:
    """`nls(min(beta a, -alpha beta b))`: balanced preference optimisation (arXiv:2506.03557, eq. 5).

    Only the side that lags behind is pushed: it is lowered by a > 0 and b < 0 together.
    """
    return -logsigmoid(torch.minimum(beta * (chosen - ref_chosen), -alpha * beta * (rejected - ref_rejected)))


def minor(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`nls(beta (a - max(0, b)))`: MinorDPO (arXiv:2408.09834). A rejected answer below the reference is left alone.

    `dpo` where b >= 0.
    """
    return -logsigmoid(beta * (chosen - ref_chosen - relu(rejected - ref_rejected)))


def shifted(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, share: float) -> Tensor:
    """`nls(beta (a - share b))`: DPO-Shift (arXiv:2502.07599), the rejected answer pushed by a `share` in (0, 1] of it.

    `dpo` at share = 1.
    """
    return -logsigmoid(beta * (chosen - ref_chosen - share * (rejected - ref_rejected)))


def entropy_scaled(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, alpha: float
) -> Tensor:
    """`nls(beta (alpha (chosen - rejected) - (ref_chosen - ref_rejected)))`: H-DPO (arXiv:2411.07595).

    The KL's entropy counts alpha times: below 1 the optimum is sharper than DPO's. Not log 2 at policy = reference. `dpo` at 1.
    """
    return -logsigmoid(beta * (alpha * (chosen - rejected) - (ref_chosen - ref_rejected)))


def calibrated(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, weight: float
) -> Tensor:
    """`nls(beta (a - b)) + weight beta a`: value-incentivised preference optimisation (VPO, arXiv:2405.19320).

    The chosen answers stand for the paper's fixed calibration distribution. `weight` > 0 is optimism, for answers sampled anew:
    it takes mass off what is known; `weight` < 0 is pessimism, for fixed data. `dpo` at 0.
    """
    a, b = chosen - ref_chosen, rejected - ref_rejected
    return -logsigmoid(beta * (a - b)) + weight * beta * a
