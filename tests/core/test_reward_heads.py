"""Mathematics of reward models of several outputs: products that may run in a circle, and what is taken off scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from evenhand.core.attributes import LARGEST, PENALTIES, least_penalties, without
from evenhand.core.general_preference import general_preference
from evenhand.objectives import AttributeRegression, BradleyTerry, GeneralPreference
from evenhand.types import Batch, Layout, ModelOut, Span


def embeddings(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_product_is_that_of_its_matrix(k):
    """<R v, w> with R written out, block by block."""
    v, w = embeddings(5, 2 * k), embeddings(5, 2 * k).flip(0)
    matrix = torch.block_diag(*[torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)] * k)
    torch.testing.assert_close(general_preference(v, w), torch.einsum("ij,nj,ni->n", matrix, v, w))
    torch.testing.assert_close(general_preference(v, w), -general_preference(w, v))
    assert (general_preference(v, v) == 0).all()


def batch(pairs: list[list[int]], count: int, **fields) -> Batch:
    """`count` answers of one token to one prompt."""
    spans = tuple(Span(1 + n, 1) for n in range(count))
    layout = Layout((Span(0, 1),), spans, (0,) * count)
    zeros = torch.zeros(count + 1, dtype=torch.long)
    mask = torch.ones(count, 1, dtype=torch.bool)
    return Batch(ids=zeros, positions=zeros, layout=layout, completion_mask=mask, pairs=torch.tensor(pairs), **fields)


def test_with_a_second_coordinate_of_one_it_is_bradley_terry():
    """One plane, tau 1: value and gradient of the first coordinates are those of scores."""
    score = embeddings(4, 1)[:, 0].requires_grad_()
    again = score.detach().clone().requires_grad_()
    asked = batch([[0, 1], [2, 3], [3, 1]], 4)
    embedded = torch.stack([again, torch.ones(4, dtype=torch.float64)], 1)
    (plain, _), (ours,) = (
        BradleyTerry()(ModelOut(score=score), asked).terms, GeneralPreference(tau=1.0)(ModelOut(scores=embedded), asked).terms,
    )  # fmt: skip
    torch.testing.assert_close(ours.value, plain.value)
    plain.value.sum().backward()
    ours.value.sum().backward()
    torch.testing.assert_close(again.grad, score.grad)


def test_ratings_are_learned_as_shares_of_their_scale():
    """Two answers, one missing rating: three squares, of which the missing one is none; by hand."""
    ratings = torch.tensor([[4.0, 1.0], [float("nan"), 3.0]])
    objective = AttributeRegression(attributes={"good": (0.0, 4.0), "long": (1.0, 5.0)})
    scores = torch.tensor([[0.5, 0.5], [9.0, 0.0]], requires_grad=True)
    asked = batch([[0, 1]], 2, ratings=ratings)
    (term,) = objective(ModelOut(scores=scores), asked).terms
    assert (term.value * term.weight).tolist() == [[0.25, 0.25], [0.0, 0.25]]
    assert objective.denominators(asked).tolist() == [3.0]
    (term.value * term.weight).sum().backward()
    assert scores.grad.tolist() == [[-1.0, 1.0], [0.0, -1.0]]


def test_as_little_is_taken_off_as_is_needed():
    """Every column: at its penalty the correlation is within the limit, at the one before it is not (scipy's Spearman)."""
    draw = np.random.default_rng(0)
    wordy = draw.normal(size=400)
    scores = np.stack([wordy, 0.3 * wordy + draw.normal(size=400), 3 * wordy + draw.normal(size=400), -wordy], 1)
    found = least_penalties(torch.from_numpy(scores), 0, limit=0.05)
    assert found[0] == found[3] == 0.0
    assert found[2] == LARGEST, "a column that follows the attribute three times over"
    at = PENALTIES.index(found[1])
    assert at > 0
    left, before = (spearmanr(scores[:, 1] - p * wordy, wordy)[0] for p in (PENALTIES[at], PENALTIES[at - 1]))
    assert left <= 0.05 < before


def test_what_is_taken_off_leaves_the_attribute_itself():
    scores = torch.tensor([[2.0, 4.0, 1.0], [0.0, 8.0, 1.0]])
    left = without(scores, torch.tensor([0.5, 0.0, 0.25]), 1)
    assert left.tolist() == [[0.0, 4.0, 0.0], [-4.0, 8.0, -1.0]]
