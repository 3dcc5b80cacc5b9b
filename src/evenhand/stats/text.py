"""Text diversity and degeneration: distinct n-grams, overlap between answers, repetition within one, spread of lengths."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from evenhand.errors import UserError

_WORD = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks; the unit of every measure here.

    >>> words("It's 3 o'clock.")
    ['it', "'", 's', '3', 'o', "'", 'clock', '.']
    """
    return _WORD.findall(text.lower())


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Distinct n-grams over all n-grams of all texts together, in (0, 1]; NaN when there is no n-gram. Li et al. 2016.

    It falls with the amount of text: compare only arms with the same prompts and similar lengths.

    >>> distinct_n(["a b a b", "a b"])
    0.5
    """
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        grams = ngrams(words(text), n)
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else math.nan


def repetition(text: str, n: int = 3) -> float:
    """Share of a text's n-grams that occurred earlier in it: 0 without repetition, near 1 in a loop; NaN below n words.

    >>> repetition("no no no no", n=1)
    0.75
    """
    grams = ngrams(words(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else math.nan


def self_overlap(texts: Sequence[str], n: int = 2) -> float:
    """Mean Jaccard overlap of the n-gram sets of all pairs of texts (answers to one prompt): 1 when all are the same.

    Pairs of texts without any n-gram are left out; NaN when no pair remains.

    >>> self_overlap(["a b c", "a b d"])
    0.3333333333333333
    """
    sets = [set(ngrams(words(text), n)) for text in texts]
    pairs = [(a, b) for i, a in enumerate(sets) for b in sets[:i] if a or b]
    return math.fsum(len(a & b) / len(a | b) for a, b in pairs) / len(pairs) if pairs else math.nan


def length_entropy(lengths: Sequence[float]) -> float:
    """Entropy in bits of the lengths in powers-of-two bins (0, 1, 2-3, 4-7, ...): 0 when all answers have one size.

    >>> length_entropy([4, 5, 6, 7]), length_entropy([1, 2, 4, 8])
    (0.0, 2.0)
    """
    if not lengths or min(lengths) < 0:
        raise UserError("needs at least one length, none negative", where="length_entropy")
    counts = Counter(math.frexp(int(x))[1] for x in lengths)
    total = len(lengths)
    return sum(c / total * math.log2(total / c) for c in counts.values())


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n consecutive tokens."""
    if n < 1:
        raise UserError(f"n = {n}", where="ngrams", fix="use n >= 1")
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))
