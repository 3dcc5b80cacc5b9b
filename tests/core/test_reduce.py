"""Reductions: the four formulas on a hand-computed case, and the invariances that make them data."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evenhand.core import reduce

REDUCTIONS = {
    "token_mean": reduce.token_mean,
    "sequence_mean": reduce.sequence_mean,
    "sequence_sum": reduce.sequence_sum,
    "constant": lambda mask: reduce.constant(mask, 10),
}


def mask_of(lengths, width=None):
    width = width or max(lengths)
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(-1)


@pytest.mark.parametrize(
    ("name", "expected"), [("token_mean", 9 / 5), ("sequence_mean", 3.0), ("sequence_sum", 4.5), ("constant", 9 / 20)]
)
def test_literal_values_for_lengths_four_and_one(name, expected):
    value = torch.tensor([[1.0, 1.0, 1.0, 1.0], [5.0, 77.0, 77.0, 77.0]])
    weight, denominator = REDUCTIONS[name](mask_of([4, 1]))
    assert (value * weight).sum().item() / denominator.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_rows_without_tokens_count_nowhere(name):
    weight, denominator = REDUCTIONS[name](mask_of([3, 0, 2]))
    short_weight, short_denominator = REDUCTIONS[name](mask_of([3, 2]))
    assert denominator == short_denominator
    assert torch.equal(weight[[0, 2]], short_weight)
    assert not weight[1].any()


@pytest.mark.parametrize("name", REDUCTIONS)
def test_an_empty_micro_batch_adds_zero_and_keeps_the_graph(name):
    weight, denominator = REDUCTIONS[name](torch.zeros(2, 3, dtype=torch.bool))
    value = torch.ones(2, 3, requires_grad=True)
    (value * weight).sum().backward()
    assert denominator == 0
    assert torch.equal(value.grad, torch.zeros(2, 3))


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(0, 6), min_size=2, max_size=8), cut=st.integers(1, 7), pad=st.integers(0, 4))
@pytest.mark.parametrize("name", REDUCTIONS)
def test_neither_the_cut_into_micro_batches_nor_padding_changes_loss_or_gradient(name, lengths, cut, pad):
    cut = min(cut, len(lengths) - 1)
    width = max(1, *lengths)
    value = torch.linspace(-1.0, 2.0, len(lengths) * width, dtype=torch.float64).reshape(len(lengths), width)
    weight, denominator = REDUCTIONS[name](mask_of(lengths, width))
    whole_loss = (value * weight).sum()
    parts = [(0, cut), (cut, len(lengths))]
    pieces = [REDUCTIONS[name](mask_of(lengths[a:b], width + pad)) for a, b in parts]
    padded = torch.nn.functional.pad(value, (0, pad), value=1e3)
    split_loss = sum((padded[a:b] * w).sum() for (a, b), (w, _) in zip(parts, pieces, strict=True))
    assert sum(d for _, d in pieces) == denominator
    assert split_loss.item() == pytest.approx(whole_loss.item(), abs=1e-12)
    assert torch.equal(torch.cat([w for w, _ in pieces])[:, :width], weight)  # the gradient is weight / denominator


def test_token_mean_is_sequence_mean_at_equal_lengths():
    mask = mask_of([3, 3])
    (wt, dt), (ws, ds) = reduce.token_mean(mask), reduce.sequence_mean(mask)
    torch.testing.assert_close(wt / dt, ws / ds)


def test_a_mask_must_be_boolean_and_a_length_positive():
    with pytest.raises(ValueError, match="bool"):
        reduce.token_mean(torch.ones(1, 2))
    with pytest.raises(ValueError, match="positive"):
        reduce.constant(mask_of([1]), 0)
