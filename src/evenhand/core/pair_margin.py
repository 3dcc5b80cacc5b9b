r"""Preference losses with another shape than DPO's, over the same margin.

Inputs are those of `core.preference`: summed completion log-probs `[B]` in nats, `ref_*` under the frozen reference. With
`x = beta D`, `D = (chosen - ref_chosen) - (rejected - ref_rejected)`, each is a function of x alone, so that what one answer
gains the other loses; unreduced `[B]`, lower is better. At policy = reference x = 0:

| loss              | of x                                       | at 0  | slope there | minimised at            |
|-------------------|--------------------------------------------|-------|-------------|-------------------------|
| exo               | s(x) (log s(x) - log(1-e)) + mirrored      | 2.761 | -1.727      | x = log((1-e)/e)        |
| discopop          | (1-m) nls(x) + m exp(-x), m = s(x/width)   | .8466 | **+.784**   | a local one at -.1186   |
| squared           | (1-x)^2                                    | 1     | -2          | x = 1                   |
| truncated_squared | max(0, 1-x)^2                              | 1     | -2          | x >= 1                  |
| exponential       | exp(-x)                                    | 1     | -1          | never                   |
| savage            | s(-x)^2                                    | 1/4   | -1/4        | never                   |
| focal             | sg(s(x)^focus) nls(x)                      | -     | -           | never                   |
| cauchy            | -log(atan(x)/pi + 1/2)                     | log 2 | -2/pi       | never                   |
| silu              | -x s(-x), without a reference              | 0     | -1/2        | x = 1.2785              |

(exo at e = .001, discopop at width = .05.) The logistic f of this family is `preference.dpo`, its hinge `preference.hinge`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu, silu

from evenhand.core import stable


def exo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, flip: float) -> Tensor:
    """`s(x) (log s(x) - log(1 - flip)) + s(-x) (log s(-x) - log flip)`: EXO (arXiv:2402.00856, eq. 16).

    The reverse KL of the policy's preference from the labels' smoothed one. `flip` lies in (0, 1/2): at 0 it is infinite. Slope
    by x: `s(x) s(-x) (x - logit(1 - flip))`, so that a badly misranked pair is given up, unlike in DPO.
    """
    if not 0 < flip < 0.5:
        raise ValueError(f"flip lies in (0, 1/2): without smoothing the loss is infinite; got {flip}")
    x = margin(chosen, rejected, ref_chosen, ref_rejected, beta)
    win, lose = logsigmoid(x), logsigmoid(-x)
    return torch.sigmoid(x) * (win - math.log1p(-flip)) + torch.sigmoid(-x) * (lose - math.log(flip))


def discopop(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, width: float) -> Tensor:
    """`(1 - m) nls(x) + m exp(-x)`, m = s(x / width): DiscoPOP, a loss found by a language model (arXiv:2406.08414, eq. 5).

    Published with a slope of the wrong sign at the start: at width = .05 a local minimum lies at x = -.1186 and a local maximum
    at +.0720, so that only what other pairs do carries a margin over it."""
    x = margin(chosen, rejected, ref_chosen, ref_rejected, beta)
    y = x / width
    return -torch.sigmoid(-y) * logsigmoid(x) + torch.exp(logsigmoid(y) - x)  # m * exp(-x) in one exponent: no 0 * inf


def squared(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`(1 - x)^2`: GPO's squared loss (arXiv:2402.05749). `ipo` at tau = beta / 2, times beta^2."""
    return (1 - margin(chosen, rejected, ref_chosen, ref_rejected, beta)).square()


def truncated_squared(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`max(0, 1 - x)^2`: GPO's truncated squared loss (arXiv:2402.05749). Past x = 1 nothing pulls back."""
    return relu(1 - margin(chosen, rejected, ref_chosen, ref_rejected, beta)).square()


def exponential(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`exp(-x)`: GPO's exponential loss (arXiv:2402.05749). Beyond an exponent of 20 it goes on as its tangent."""
    return stable.exp(-margin(chosen, rejected, ref_chosen, ref_rejected, beta))


def savage(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`s(-x)^2`: GPO's Savage loss (arXiv:2402.05749), bounded by 1: pairs far on the wrong side are given up."""
    return torch.sigmoid(-margin(chosen, rejected, ref_chosen, ref_rejected, beta)).square()


def focal(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, focus: float) -> Tensor:
    """`sg(s(x)^focus) nls(x)`: FocalPO (arXiv:2501.06645, eq. 4), which weighs up what is ranked right already.

    The factor is held constant: in the graph the gradient would turn round where s(x) < e^(-1 / focus). `dpo` at focus = 0.
    """
    x = margin(chosen, rejected, ref_chosen, ref_rejected, beta)
    return -torch.exp(focus * logsigmoid(x)).detach() * logsigmoid(x)


def cauchy(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`-log(atan(x) / pi + 1/2)`: noise with Cauchy's tails in place of the logistic's (RainbowPO, arXiv:2410.04203).

    It falls like log |x| on the wrong side, so that outliers pull with 1 / |x|.
    """
    x = margin(chosen, rejected, ref_chosen, ref_rejected, beta)
    left = x < -1  # atan(x) / pi + 1/2 = atan(-1 / x) / pi there: the sum would cancel
    share = torch.where(left, torch.atan(-1 / torch.where(left, x, -1.0)), torch.atan(torch.where(left, 0.0, x)) + math.pi / 2)
    return -torch.log(share / math.pi)


def silu_margin(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """`-z s(-z)`, z = beta (chosen - rejected): self-preference optimisation by a SiLU (Sun et al., EMNLP Findings 2025).

    `nls(z)` less the entropy of the preference s(z): lowest, -.2785, at z = 1.2785, where margins stop growing.
    """
    return silu(-beta * (chosen - rejected))


def margin(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float) -> Tensor:
    """x = beta D: how much further than the reference the policy prefers the chosen answer."""
    return beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
