"""What a set of prompts is about, without a model: TF-IDF, a projection to the plane, and topics named by their words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from evenhand.data.minhash import words
from evenhand.errors import UserError
from evenhand.seeding import rng

RANK = 32
"""Directions that topics are found in; the first two are drawn."""
ROUNDS = 50
"""Rounds of k-means at most."""
POWERS = 6
"""Rounds of the subspace iteration."""


@dataclass(frozen=True, slots=True)
class Explored:
    """`points` [n, 2] in the plane, `topic` [n] of each text, and the words that name each topic, the most telling first."""

    points: np.ndarray
    topic: np.ndarray
    names: tuple[tuple[str, ...], ...]


def explore(texts: Sequence[str], *, topics: int = 8, seed: int = 0) -> Explored:
    """Texts in the plane and in topics: TF-IDF, its leading singular vectors, and k-means on them (spherical).

    Raises UserError for fewer than four texts with a word that another text has too.
    """
    matrix, vocabulary = tfidf(texts)
    if len(texts) < 4 or matrix.shape[1] < 3:
        raise UserError(f"{len(texts)} texts share too few words to be drawn", where="explore", fix="give more prompts")
    rank = min(RANK, min(matrix.shape) - 1)
    places = leading(matrix, rank, seed=seed)
    topic = kmeans(unit(places), min(topics, len(texts)), seed=seed)
    return Explored(upright(places[:, :2]), topic, named(matrix, topic, vocabulary))


def tfidf(texts: Sequence[str]) -> tuple[csr_matrix, list[str]]:
    """[n, v] with rows of length 1, and the v words. Words of one text alone, or of more than half of them, are left out.

    Weight of word w in text d: (1 + ln count) (ln (n / documents with w) + 1).
    """
    counts = [Counter(words(t)) for t in texts]
    seen = Counter(w for c in counts for w in c)
    kept = sorted(w for w, n in seen.items() if 2 <= n <= max(2, len(texts) // 2))
    column = {w: i for i, w in enumerate(kept)}
    weight = {w: math.log(len(texts) / seen[w]) + 1.0 for w in kept}
    entries = [
        (row, column[w], (1 + math.log(n)) * weight[w]) for row, c in enumerate(counts) for w, n in c.items() if w in column
    ]
    rows, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
    matrix = csr_matrix((np.array(values, dtype=float), (rows, columns)), shape=(len(texts), len(kept)))
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return csr_matrix(matrix.multiply(1 / np.where(norms > 0, norms, 1)[:, None])), kept


def leading(matrix: csr_matrix, rank: int, *, seed: int) -> np.ndarray:
    """U S [n, rank] of the largest singular values, the same for the same seed.

    By subspace iteration from random directions. Source: Halko, Martinsson and Tropp 2011, algorithm 4.4.
    """
    basis = matrix @ rng(seed, "directions").standard_normal((matrix.shape[1], min(rank + 8, min(matrix.shape))))
    for _ in range(POWERS):
        basis = matrix @ np.linalg.qr(matrix.T @ np.linalg.qr(basis)[0])[0]
    q = np.linalg.qr(basis)[0]
    u, s, _ = np.linalg.svd((matrix.T @ q).T, full_matrices=False)
    return (q @ u * s)[:, :rank]


def kmeans(points: np.ndarray, k: int, *, seed: int) -> np.ndarray:
    """[n] cluster of each row: Lloyd's algorithm from k-means++ centres; clusters are numbered by size, the largest first."""
    draw = rng(seed, "kmeans")
    centres = points[[int(draw.integers(len(points)))]]
    while len(centres) < k:
        far = ((points[:, None] - centres[None]) ** 2).sum(-1).min(1)
        if not far.any():
            break
        centres = np.vstack([centres, points[draw.choice(len(points), p=far / far.sum())]])
    label = np.zeros(len(points), dtype=int)
    for _ in range(ROUNDS):
        found = ((points[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
        if (found == label).all():
            break
        label = found
        for i in np.unique(label):
            centres[i] = points[label == i].mean(0)
    kept = sorted(np.unique(label), key=lambda i: -int((label == i).sum()))
    return np.array([kept.index(i) for i in label])


def named(matrix: csr_matrix, topic: np.ndarray, vocabulary: Sequence[str], count: int = 4) -> tuple[tuple[str, ...], ...]:
    """The words whose mean weight in a topic is furthest above their mean elsewhere."""
    whole = np.asarray(matrix.mean(axis=0)).ravel()
    names = []
    for i in range(int(topic.max()) + 1):
        inside = np.asarray(matrix[np.flatnonzero(topic == i)].mean(axis=0)).ravel()
        best = np.argsort(-(inside - whole), kind="stable")[:count]
        names.append(tuple(vocabulary[j] for j in best if inside[j] > whole[j]))
    return tuple(names)


def unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def upright(points: np.ndarray) -> np.ndarray:
    """The same picture whatever signs the singular vectors came with: the largest coordinate of each axis is positive."""
    largest = points[np.abs(points).argmax(0), np.arange(points.shape[1])]
    return points * np.where(largest < 0, -1.0, 1.0)
