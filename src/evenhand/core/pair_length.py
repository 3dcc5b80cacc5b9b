r"""Preference losses on length-mean log-probs: what an answer says per token, not as a whole.

`mean_*` [B] are log-probs divided by the answer's counted tokens, nats per token. Unreduced `[B]`, lower is better. A `beta`
does not carry over from a loss of sums: per token margins are smaller by the answer's length.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from evenhand.core import stable
from evenhand.core.preference import log_odds


def dpo_norm(
    mean_chosen: Tensor, mean_rejected: Tensor, ref_mean_chosen: Tensor, ref_mean_rejected: Tensor, *, beta: float
) -> Tensor:
    """`nls(beta (a / n_chosen - b / n_rejected))`: length-normalised DPO (Tulu 3, arXiv:2411.15124, section 4.3).

    TRL's `sigmoid_norm`. `dpo` for answers of one token.
    """
    return -logsigmoid(beta * ((mean_chosen - ref_mean_chosen) - (mean_rejected - ref_mean_rejected)))


def rainbow(
    mean_chosen: Tensor,
    mean_rejected: Tensor,
    ref_mean_chosen: Tensor,
    ref_mean_rejected: Tensor,
    *,
    beta: float,
    margin: float,
    mix: float,
) -> Tensor:
    """`nls(beta (dm - mix dref - (1 - mix) margin))`: RainbowPO's mixed reference (arXiv:2410.04203), d = chosen - rejected.

    Between a reference's margin and one that is the same for every pair: `dpo_norm` at mix = 1, `simpo` at 0 with beta * margin.
    """
    target = mix * (ref_mean_chosen - ref_mean_rejected) + (1 - mix) * margin
    return -logsigmoid(beta * (mean_chosen - mean_rejected - target))


def alpha_po(mean_chosen: Tensor, mean_rejected: Tensor, *, beta: float, alpha: float, margin: float) -> Tensor:
    """`nls(beta (r_chosen - r_rejected) - margin)`, r = (1 - e^(-alpha m)) / alpha: AlphaPO (arXiv:2501.03884).

    The reward of a mean log-prob m bends: its slope e^(-alpha m) is the larger, the less likely the answer. `simpo` at alpha = 0.
    """
    chosen, rejected = (_bent(m, alpha) for m in (mean_chosen, mean_rejected))
    return -logsigmoid(beta * (chosen - rejected) - margin)


def relu_margin(mean_chosen: Tensor, mean_rejected: Tensor, *, margin: float) -> Tensor:
    """`max(0, margin - (mean_chosen - mean_rejected))`: RePO (arXiv:2503.07426), SimPO at beta -> infinity.

    A pair that is far enough apart has exactly no gradient. `slic` on length-means.
    """
    return relu(margin - (mean_chosen - mean_rejected))


def absolute_odds(mean_chosen: Tensor, mean_rejected: Tensor) -> Tensor:
    """`nls(lo(mean_chosen)) + nls(-lo(mean_rejected))`, lo the log odds: the alignment terms of ASFT (arXiv:2409.10571).

    Each answer is classified by itself, where `orpo` compares the two. `nls(lo(m))` is -m: the first term is an NLL per token.
    """
    return -logsigmoid(log_odds(mean_chosen)) - logsigmoid(-log_odds(mean_rejected))


def _bent(mean: Tensor, alpha: float) -> Tensor:
    return mean if alpha == 0 else -stable.expm1(-alpha * mean) / alpha
