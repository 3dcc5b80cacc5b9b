"""Four bits a weight: the levels of the paper, the nearest of them, and the bytes of bitsandbytes."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import norm

from evenhand.core import nf4

SHAPES = [(3, 128), (5, 7), (64, 1), (2, 3, 33)]


def weights(shape, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(dtype)


def test_levels_are_quantiles_of_the_normal_distribution():
    """Equation 4 of the paper: 2^k + 1 evenly spaced quantiles of each half, zero in both, the ends at 1."""
    spaced = torch.linspace(0.9677083, 0.5, 9).tolist()[:-1], torch.linspace(0.9677083, 0.5, 8).tolist()[:-1]
    positive, negative = ([float(norm.ppf(q)) for q in half] for half in spaced)
    expected = sorted([*(p / max(positive) for p in positive), 0.0, *(-n / max(negative) for n in negative)])
    assert expected == pytest.approx(nf4.LEVELS, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_weight_is_the_nearest_level_of_its_block(shape):
    w = weights(shape)
    found = nf4.rounded(w).flatten().tolist()
    given = w.flatten().tolist()
    for n, value in enumerate(given):
        block = given[n - n % 64 : n - n % 64 + 64]
        scale = max(map(abs, block))
        assert found[n] == pytest.approx(min((level * scale for level in nf4.LEVELS), key=lambda x: abs(x - value)), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_rounded_once_is_left_alone(dtype):
    once = nf4.rounded(weights((96, 64), dtype))
    assert once.dtype == dtype
    assert torch.equal(nf4.rounded(once), once)


def test_zeros_stay_and_the_size_is_four_and_a_half_bits_a_weight():
    assert not nf4.rounded(torch.zeros(2, 64)).any()
    halves, scale = nf4.packed(weights((128, 64)))
    assert halves.nbytes + scale.nbytes == 128 * 64 * 4.5 / 8


@pytest.mark.parametrize("shape", [(96, 64), (7, 64)], ids=str)
def test_bytes_are_those_of_bitsandbytes(shape):
    library = pytest.importorskip("bitsandbytes")
    w = weights(shape)
    theirs, state = library.functional.quantize_4bit(w, blocksize=64, quant_type="nf4")
    halves, scale = nf4.packed(w)
    assert torch.equal(theirs.flatten(), halves)
    assert torch.equal(state.absmax, scale)
    assert torch.equal(library.functional.dequantize_4bit(theirs, state), nf4.unpacked(halves, scale, shape))
