"""Texts as sets of word n-grams, hashed: similarity, MinHash signatures, and overlap."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from evenhand.seeding import rng

_WORD = re.compile(r"\w+")
_PERMUTATIONS = 128
_BASE = np.uint64(0x9E3779B97F4A7C15)


def words(text: str) -> list[str]:
    """Lower-case words without punctuation.

    >>> words("Don't panic, Ford!")
    ['don', 't', 'panic', 'ford']
    """
    return _WORD.findall(text.lower())


@lru_cache(maxsize=1 << 20)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


def gram_hashes(tokens: Sequence[str], size: int) -> np.ndarray:
    """A 64-bit hash of each run of `size` words, in order; of all words together when there are fewer."""
    if not tokens:
        return np.zeros(0, np.uint64)
    size = min(size, len(tokens))
    values = np.array([_word_hash(t) for t in tokens], np.uint64)
    runs = len(tokens) - size + 1
    mixed = np.zeros(runs, np.uint64)
    with np.errstate(over="ignore"):
        for i in range(size):
            mixed = mixed * _BASE + values[i : i + runs]
        mixed ^= mixed >> np.uint64(31)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(29))


def shingles(tokens: Sequence[str], size: int) -> np.ndarray:
    """The set of hashed word n-grams, sorted."""
    return np.unique(gram_hashes(tokens, size))


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|a and b| / |a or b| of two sorted sets; two empty sets are equal."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    either = len(a) + len(b) - both
    return both / either if either else 1.0


def rows_per_band(threshold: float, sure: float = 0.99) -> int:
    """The most rows per band for which two sets at the threshold share a band with probability `sure`.

    P = 1 - (1 - t^r)^(128 / r).
    """
    fitting = [r for r in (1, 2, 4, 8, 16, 32) if 1 - (1 - threshold**r) ** (_PERMUTATIONS // r) >= sure]
    return max(fitting, default=1)


class Signatures:
    """An index of MinHash signatures: which earlier sets may be as near as the threshold."""

    def __init__(self, threshold: float) -> None:
        self._rows = rows_per_band(threshold)
        generator = rng("minhash")
        self._factors = generator.integers(0, 2**63, _PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._offsets = generator.integers(0, 2**63, _PERMUTATIONS, dtype=np.uint64)
        self._index: dict[bytes, list[int]] = {}

    def buckets(self, grams: np.ndarray) -> list[bytes]:
        """One key per band of the set's signature."""
        with np.errstate(over="ignore"):
            permuted = grams[:, None] * self._factors + self._offsets if len(grams) else np.zeros((1, _PERMUTATIONS), np.uint64)
        bands = permuted.min(axis=0).reshape(-1, self._rows)
        return [bytes([i]) + band.tobytes() for i, band in enumerate(bands)]

    def candidates(self, buckets: Iterable[bytes]) -> list[int]:
        """Numbers of sets that share a band, smallest first."""
        return sorted({number for key in buckets for number in self._index.get(key, ())})

    def add(self, number: int, buckets: Iterable[bytes]) -> None:
        for key in buckets:
            self._index.setdefault(key, []).append(number)


class Grams:
    """The n-grams of a collection of texts, for finding them in others; texts shorter than n count whole."""

    def __init__(self, texts: Iterable[str], size: int) -> None:
        self._of_length: dict[int, set[int]] = {}
        for text in texts:
            tokens = words(text)
            if tokens:
                length = min(size, len(tokens))
                self._of_length.setdefault(length, set()).update(gram_hashes(tokens, length).tolist())

    def find(self, text: str) -> str:
        """The first shared run of words, or ""."""
        tokens = words(text)
        return next(self._hits(tokens), "")

    def _hits(self, tokens: Sequence[str]) -> Iterator[str]:
        for length, known in sorted(self._of_length.items(), reverse=True):
            if length > len(tokens):
                continue
            for start, value in enumerate(gram_hashes(tokens, length).tolist()):
                if value in known:
                    yield " ".join(tokens[start : start + length])
