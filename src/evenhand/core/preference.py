r"""Preference losses: what a pair (or one labelled answer) says about the policy, as a loss per item.

Inputs are `[B]`: `chosen`, `rejected` are summed completion log-probs under the policy, `ref_*` the same under the frozen
reference, `mean_*` length-means (sum / tokens); nats. With `D = (chosen - ref_chosen) - (rejected - ref_rejected)` and
`nls(x) = -log sigmoid(x)`, every function returns the unreduced `[B]`, lower is better:

| function             | loss                                              | minimised (hard labels unless said) at          |
|----------------------|---------------------------------------------------|-------------------------------------------------|
| dpo                  | nls(beta D)                                       | pi ~ ref exp(r / beta), r the Bradley-Terry MLE |
| cdpo                 | (1-e) nls(beta D) + e nls(-beta D)                | beta D = log((1-e) / e)                         |
| robust               | ((1-e) nls(beta D) - e nls(-beta D)) / (1-2e)     | never: falls without bound                      |
| ipo, ipo_mean        | (D - 1/(2 tau))^2                                 | D = 1/(2 tau); at P(better) = p: (2p-1)/(2 tau) |
| hinge                | max(0, 1 - beta D)                                | D >= 1/beta                                     |
| length_desensitised  | nls(beta D + alpha (chosen - rejected tokens))    | as dpo, for the reward r - alpha * tokens       |
| local                | nls(beta (chosen - rejected))                     | as dpo, without a reference                     |
| slic                 | max(0, margin - chosen + rejected)                | chosen - rejected >= margin                     |
| simpo                | nls(beta (mean_chosen - mean_rejected) - margin)  |                                                 |
| orpo                 | nls(log odds of chosen - log odds of rejected)    |                                                 |
| aot_*                | nls on sorted log-ratios (`core.aot`)             |                                                 |
| kto                  | one labelled answer against z0 (`core.kto`)       |                                                 |
| bradley_terry        | nls(score difference - margin)                    | score difference = log odds + margin            |

RPO and ORPO as published add the chosen answer's NLL: an objective's matter, since that term is reduced over tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from evenhand.core.aot import aot_of_pairs, aot_paired, aot_unpaired
from evenhand.core.kto import kto, mismatched, z0

__all__ = [
    "aot_of_pairs",
    "aot_paired",
    "aot_unpaired",
    "bradley_terry",
    "cdpo",
    "centring",
    "dpo",
    "hinge",
    "ipo",
    "ipo_mean",
    "kto",
    "length_desensitised",
    "local",
    "log_odds",
    "mismatched",
    "orpo",
    "robust",
    "simpo",
    "slic",
    "z0",
]


def dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`nls(beta D)`: direct preference optimisation (arXiv:2305.18290, eq. 7).

    log 2 while policy == reference. Gradient by `chosen`: `-beta sigmoid(-beta D)`, by `rejected` its negative; |.| <= beta.

    >>> import torch
    >>> zero = torch.zeros(1)
    >>> dpo(zero, zero, zero, zero, beta=0.1)
    tensor([0.6931])
    """
    return -logsigmoid(beta * _advance(chosen, rejected, ref_chosen, ref_rejected))


def cdpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, flip: float) -> Tensor:
    """`(1 - flip) nls(beta D) + flip nls(-beta D)`: conservative DPO, labels wrong with probability `flip` in [0, 1/2).

    Minimised at `beta D = log((1 - flip) / flip)`, so margins stop growing. Reduces to `dpo` at flip = 0.
    Source: Mitchell, "A note on DPO with noisy preferences" (2023).
    """
    _check_flip(flip)
    margin = beta * _advance(chosen, rejected, ref_chosen, ref_rejected)
    return -(1 - flip) * logsigmoid(margin) - flip * logsigmoid(-margin)


def robust(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, flip: float) -> Tensor:
    """`[(1 - flip) nls(beta D) - flip nls(-beta D)] / (1 - 2 flip)`: unbiased for the clean DPO loss under label flips.

    Strictly decreasing and unbounded below, with slope -> -flip / (1 - 2 flip): stop early. `flip` in [0, 1/2).
    Reduces to `dpo` at flip = 0. Source: arXiv:2403.00409.
    """
    _check_flip(flip)
    margin = beta * _advance(chosen, rejected, ref_chosen, ref_rejected)
    return (-(1 - flip) * logsigmoid(margin) + flip * logsigmoid(-margin)) / (1 - 2 * flip)


def ipo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, tau: float) -> Tensor:
    """`(D - 1/(2 tau))^2` on summed log-probs (arXiv:2310.12036). `tau` > 0, per nat of the whole answer.

    The gradient `2 (D - 1/(2 tau))` changes sign past the target: margins are pulled back, unlike DPO's.
    """
    return (_advance(chosen, rejected, ref_chosen, ref_rejected) - 1 / (2 * tau)).square()


def ipo_mean(
    mean_chosen: Tensor, mean_rejected: Tensor, ref_mean_chosen: Tensor, ref_mean_rejected: Tensor, *, tau: float
) -> Tensor:
    """`ipo` on length-mean log-probs, as its authors ran it. The target 1/(2 tau) is then in nats *per token*.

    A `tau` does not carry over between the two: tau = 0.1 asks for 5 nats in total there, for 5 nats per token here.
    """
    return ipo(mean_chosen, mean_rejected, ref_mean_chosen, ref_mean_rejected, tau=tau)


def hinge(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """`max(0, 1 - beta D)`: the hinge of RSO (arXiv:2309.06657). Gradient by `chosen`: -beta or exactly 0."""
    return relu(1 - beta * _advance(chosen, rejected, ref_chosen, ref_rejected))


def length_desensitised(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    length_chosen: Tensor,
    length_rejected: Tensor,
    *,
    beta: float,
    alpha: float,
) -> Tensor:
    """`nls(beta D + alpha (length_chosen - length_rejected))`: DPO for the reward r - alpha * length (R-DPO, arXiv:2403.19159).

    `length_*` [B] in tokens; alpha > 0 in reward per token: a longer chosen answer needs a smaller margin. `dpo` at alpha = 0.
    """
    margin = beta * _advance(chosen, rejected, ref_chosen, ref_rejected)
    return -logsigmoid(margin + alpha * (length_chosen - length_rejected))


def local(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """`nls(beta (chosen - rejected))`: a policy read as a reward model, r(y) = beta log pi(y) with beta a constant of the run.

    Equals `dpo` with ref_* = 0. That is *no* reference, not a uniform one: a uniform one would add beta log V per token.
    """
    return -logsigmoid(beta * (chosen - rejected))


def slic(chosen: Tensor, rejected: Tensor, *, margin: float) -> Tensor:
    """`max(0, margin - chosen + rejected)`: the rank term of SLiC-HF (arXiv:2305.10425); its NLL term is added outside."""
    return relu(margin - chosen + rejected)


def simpo(mean_chosen: Tensor, mean_rejected: Tensor, *, beta: float, margin: float) -> Tensor:
    """`nls(beta (mean_chosen - mean_rejected) - margin)`: SimPO (arXiv:2405.14734, eq. 6), without a reference.

    `margin` is the paper's gamma (its code writes it as a ratio gamma / beta). At margin = 0 and n tokens on both sides it is
    `local` at beta / n.
    """
    return -logsigmoid(beta * (mean_chosen - mean_rejected) - margin)


def orpo(mean_chosen: Tensor, mean_rejected: Tensor) -> Tensor:
    """`nls(lo(mean_chosen) - lo(mean_rejected))`, lo(x) = x - log(1 - e^x): the odds-ratio term of ORPO (arXiv:2403.07691).

    Length-*means* are essential: at a summed log-prob the odds equal the probability, and this is `local` at beta = 1.
    The objective adds the NLL and the weight lambda.

    >>> import torch
    >>> orpo(torch.tensor([0.5]).log(), torch.tensor([0.5]).log())
    tensor([0.6931])
    """
    return -logsigmoid(log_odds(mean_chosen) - log_odds(mean_rejected))


def bradley_terry(chosen: Tensor, rejected: Tensor, *, margin: float | Tensor = 0.0) -> Tensor:
    """`nls(chosen - rejected - margin)` on scores `[B]`: the reward-model loss (Bradley and Terry, 1952).

    `margin` (a number or [B]) asks a clearer preference for a larger difference. A common shift of all scores of a prompt
    changes nothing: the level of a reward model is free, see `centring`.

    >>> import torch
    >>> bradley_terry(torch.tensor([3.0]), torch.tensor([3.0]))
    tensor([0.6931])
    """
    return -logsigmoid(chosen - rejected - margin)


def centring(chosen: Tensor, rejected: Tensor) -> Tensor:
    """`(chosen + rejected)^2` on scores `[B]`: weighted by about 0.01 it pins the free level of a reward model near 0."""
    return (chosen + rejected).square()


def _advance(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    """D: how much further than the reference the policy prefers the chosen answer, in nats."""
    return (chosen - ref_chosen) - (rejected - ref_rejected)


def log_odds(mean_logp: Tensor) -> Tensor:
    """`log(p / (1 - p))` from log p <= 0, at least in fp32; nats."""
    x = mean_logp if mean_logp.dtype == torch.float64 else mean_logp.float()
    # `where` differentiates both branches: at x = 0 both are infinite, so the clamp must come before, not inside, them.
    x = x.clamp(max=-1e-6)
    return x - torch.where(x > -math.log(2), torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


def _check_flip(flip: float) -> None:
    if not 0 <= flip < 0.5:
        raise ValueError(f"flip is the probability of a wrong label and lies in [0, 1/2), got {flip}")
