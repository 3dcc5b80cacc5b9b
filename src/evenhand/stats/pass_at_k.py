"""pass@k: the probability that at least one of k answers to a prompt is right."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from evenhand.errors import UserError


def pass_at_k(correct: ArrayLike, samples: int, k: int) -> np.ndarray:
    """The unbiased estimate per prompt from `samples` = n answers of which `correct` = c are right: 1 - C(n - c, k) / C(n, k).

    It is the share of all k-subsets of the n answers that hold a right one, as 1 - prod_{i = n-c+1}^{n} (1 - k / i): Chen et al.,
    "Evaluating Large Language Models Trained on Code" (2021), eq. 1. For k = 1 it is c / n; 1 - (1 - c / n)^k would be too small.

    Raises: UserError for k outside 1 .. n, and counts outside 0 .. n.

    >>> pass_at_k([0, 1, 2, 4], samples=4, k=2).round(3).tolist()
    [0.0, 0.5, 0.833, 1.0]
    """
    counts = np.asarray(correct)
    if not 1 <= k <= samples:
        raise UserError(f"pass@{k} from {samples} answers", where="pass_at_k", fix="draw at least k answers per prompt")
    if counts.size and (counts.min() < 0 or counts.max() > samples):
        raise UserError(f"{counts.max()} of {samples} answers are right", where="pass_at_k")
    i = np.arange(1, samples + 1)
    terms = np.where(i > samples - counts[..., None], np.maximum(1.0 - k / i, 0.0), 1.0)
    return 1.0 - terms.prod(axis=-1)
