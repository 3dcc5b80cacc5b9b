"""From logits to a token: inverse-CDF sampling with one keyed uniform number per row and position.

A row's uniforms depend only on (seed, prompt id, completion index), so its tokens do not depend on which rows it is sampled
beside, in which order, or how many completions were asked for; only floating-point noise in the logits can move a draw that
falls on the edge between two tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from evenhand.seeding import rng
from evenhand.types import Sampling

NUCLEUS_GUESS = 256
"""Largest probabilities looked at first for top-p: the vocabulary is not sorted for rows whose nucleus lies within them."""
SMALL = 1 << 15
"""Up to so many probabilities one cumulative sum is faster than sums of blocks."""


def uniforms(seed: int, prompt_id: str, completion: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) for one row. A longer count starts with the numbers of a shorter one.

    >>> bool((uniforms(0, "p", 1, 3) == uniforms(0, "p", 1, 5)[:3]).all())
    True
    """
    return rng(seed, "sample", prompt_id, completion).random(count)


class Draw:
    """Draws one token per row, each row with its own `Sampling`.

    `draw(logits [R, V], uniform [R]) -> (tokens [R], logp [R])`. With z the logits and T the temperature, logp is

        log softmax(z / T)[token]                      top_p = 1, top_k = 0, min_p = 0
        the same, renormalised over the tokens kept    otherwise: first the top_k most likely tokens, then of these the fewest
                                                       whose probability reaches top_p, then of these the ones at least min_p
                                                       times as likely as the likeliest (the order transformers uses)
        0                                              T = 0 (greedy: the sampled distribution is a point mass)

    Ties at the edge of top_k or top_p are cut, so exactly k tokens are kept. Source of min_p: Nguyen et al. 2024, equation 2.
    """

    def __init__(self, sampling: Sequence[Sampling], device: torch.device) -> None:
        self._temperature = torch.tensor([s.temperature for s in sampling], device=device)
        self._top_p = torch.tensor([s.top_p for s in sampling], device=device)
        self._top_k = torch.tensor([s.top_k for s in sampling], device=device)
        self._min_p = torch.tensor([s.min_p for s in sampling], device=device)
        # Which code paths are needed is fixed for a whole run of steps: no host synchronisation per token.
        self._refresh()

    def _refresh(self) -> None:
        self._greedy = self._temperature == 0
        self._cut = ((self._top_p < 1) | (self._top_k > 0) | (self._min_p > 0)) & ~self._greedy
        self._cut_rows = self._cut.nonzero().squeeze(1)
        self._scale = self._temperature.where(~self._greedy, 1.0)[:, None]
        self._any_greedy, self._all_greedy = bool(self._greedy.any()), bool(self._greedy.all())
        self._all_at_one, self._all_cut = bool((self._scale == 1).all()), bool(self._cut.all())
        its_k = self._top_k[self._cut_rows]
        self._largest_k, self._all_top_k = int(its_k.max()) if its_k.numel() else 0, bool((its_k > 0).all())

    def select(self, order: Tensor) -> None:
        """Keeps the rows `order`, in that order."""
        self._temperature, self._min_p = self._temperature[order], self._min_p[order]
        self._top_p, self._top_k = self._top_p[order], self._top_k[order]
        self._refresh()

    def __call__(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        if self._all_greedy:
            return _greedy(logits)
        scaled = logits.float() if self._all_at_one else logits.float() / self._scale
        if self._all_cut:
            return self._draw_cut(scaled, uniform, self._cut_rows)
        tokens, logp = draw_full(scaled, uniform)
        if self._cut_rows.numel():
            rows = self._cut_rows
            tokens[rows], logp[rows] = self._draw_cut(scaled[rows], uniform[rows], rows)
        if self._any_greedy:
            best, zero = _greedy(logits)
            tokens, logp = best.where(self._greedy, tokens), zero.where(self._greedy, logp)
        return tokens, logp

    def _draw_cut(self, scaled: Tensor, uniform: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        top_p, top_k, min_p = self._top_p[rows, None], self._top_k[rows, None], self._min_p[rows, None]
        vocabulary = scaled.shape[1]
        widest = min(self._largest_k, vocabulary) if self._all_top_k else vocabulary
        top_k = top_k.where((top_k > 0) & (top_k < vocabulary), vocabulary)
        width = min(max(NUCLEUS_GUESS, self._largest_k), widest)
        return draw_cut(scaled, uniform, top_p, top_k, min_p, width=width, widest=widest)


def _greedy(logits: Tensor) -> tuple[Tensor, Tensor]:
    tokens = logits.argmax(-1)
    value = logits.gather(-1, tokens[:, None]).squeeze(-1).float()
    return tokens, value - value  # 0, or NaN where the logits are no numbers


def draw_full(scaled: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse CDF over the whole vocabulary: tokens [R] and log softmax(scaled)[token] [R]; scaled [R, V] is float32.

    The cumulative sum runs over sums of blocks and then inside one block: it is cheap, and in double precision it never lands
    on a token of probability zero.
    """
    rows, vocabulary = scaled.shape
    probability = torch.softmax(scaled, dim=1)
    if rows * vocabulary <= SMALL:
        tokens = _invert(probability, uniform)[0]
        return tokens, probability.gather(1, tokens[:, None]).squeeze(1).log()
    block = _block(vocabulary)
    if vocabulary % block:
        probability = torch.nn.functional.pad(probability, (0, block - vocabulary % block))
    blocks = probability.view(rows, -1, block)
    which, rest = _invert(blocks.sum(-1), uniform)
    chosen = blocks[torch.arange(rows, device=scaled.device), which]
    within, _ = _invert(chosen, rest())
    return which * block + within, chosen.gather(1, within[:, None]).squeeze(1).log()


def draw_cut(
    scaled: Tensor, uniform: Tensor, top_p: Tensor, top_k: Tensor, min_p: Tensor, *, width: int, widest: int
) -> tuple[Tensor, Tensor]:
    """Inverse CDF over the tokens that top-k, top-p and min-p [R, 1] keep: at most `widest`.

    The `width` largest are looked at first; only rows whose nucleus is wider are drawn again, with eight times as many.
    """
    value, token = scaled.topk(width, dim=1)
    rank = torch.arange(width, device=scaled.device)
    value = value.masked_fill(rank >= top_k, -torch.inf)
    # Normalised over the top k, which is the whole vocabulary when top_k is off.
    total = value.logsumexp(1, keepdim=True).where(top_k <= width, scaled.logsumexp(1, keepdim=True))
    probability = (value - total).exp()
    reached = probability.cumsum(1)
    unlikely = value < value[:, :1] + min_p.log()  # never where min_p is 0
    kept = torch.log_softmax(value.masked_fill((reached - probability >= top_p) & (rank > 0) | unlikely, -torch.inf), dim=1)
    index = _invert(kept.exp(), uniform)[0][:, None]
    tokens, logp = token.gather(1, index).squeeze(1), kept.gather(1, index).squeeze(1)
    if width < widest:
        wider = (reached[:, -1:] < top_p) & (top_k > width) & ~unlikely[:, -1:]
        again = wider.squeeze(1).nonzero().squeeze(1)
        if again.numel():
            more = scaled[again], uniform[again], top_p[again], top_k[again], min_p[again]
            tokens[again], logp[again] = draw_cut(*more, width=min(8 * width, widest), widest=widest)
    return tokens, logp


def _invert(weight: Tensor, uniform: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """The first index [R] whose cumulative weight exceeds `uniform * total`, and where in [0, 1] of its share it was hit.

    >>> index, rest = _invert(torch.tensor([[1.0, 0.0, 3.0]]), torch.tensor([0.5], dtype=torch.float64))
    >>> index.item(), round(rest().item(), 4)
    (2, 0.3333)
    """
    exact = torch.float32 if weight.device.type == "mps" else torch.float64
    cumulative = torch.cumsum(weight, 1, dtype=exact)
    below_one = 1 - 1e-7 if exact == torch.float32 else 1 - 1e-12
    target = uniform.to(exact).clamp(max=below_one)[:, None] * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, target, right=True).clamp_(max=weight.shape[1] - 1)

    def rest() -> Tensor:
        share = weight.gather(1, index).to(exact)
        before = cumulative.gather(1, index) - share
        return ((target - before) / share).clamp_(0.0, 1.0).squeeze(1)

    return index.squeeze(1), rest


def _block(vocabulary: int) -> int:
    """A block length near the square root of the vocabulary that divides it, or one that needs padding."""
    root = max(1, int(vocabulary**0.5))
    for block in range(root, root // 3, -1):
        if vocabulary % block == 0:
            return block
    return root
