"""Levels and codes of numbers in eight bits, against the published map, a search over all levels, and its error bound."""

from __future__ import annotations

import pytest
import torch

from evenhand.core import eight_bit

CPU = torch.device("cpu")


def test_levels_by_hand():
    """Means of evenly spaced edges in each decade: one of [1e-7, 1e-6] at the bottom, 64 of [0.1, 1] at the top."""
    signed, unsigned = eight_bit.levels(CPU, signed=True), eight_bit.levels(CPU, signed=False)
    assert [len(x.unique()) for x in (signed, unsigned)] == [256, 256]
    assert signed[signed > 0].min().item() == pytest.approx(0.55e-6)
    assert unsigned[1:3].tolist() == pytest.approx([0.325e-6, 0.775e-6])
    assert signed[-2:].tolist() == pytest.approx([1 - 0.9 / 64 / 2, 1.0])
    assert unsigned[-2].item() == pytest.approx(1 - 0.9 / 128 / 2)
    assert signed[signed < 0].tolist() == pytest.approx((-signed[(signed > 0) & (signed < 1)]).flip(0).tolist())


@pytest.mark.parametrize("signed", [True, False])
def test_levels_are_those_of_bitsandbytes(signed):
    published = pytest.importorskip("bitsandbytes").functional.create_dynamic_map(signed=signed)
    assert torch.allclose(eight_bit.levels(CPU, signed=signed), published, rtol=1e-6, atol=1e-12)


def spread_out() -> torch.Tensor:
    """2,000 numbers over seven decades, of either sign, none beyond 1."""
    sizes = 10.0 ** -torch.arange(2000).div(300)
    return (torch.randn(2000, generator=torch.Generator().manual_seed(0)) * sizes).clamp(-1, 1)


def test_codes_are_those_of_the_nearest_level():
    """Also half-way between two levels, at both ends, and for numbers beneath the smallest level."""
    levels = eight_bit.levels(CPU, signed=True)
    middles = (levels[1:] + levels[:-1]) / 2
    x = torch.cat([spread_out(), levels, middles, middles.nextafter(torch.tensor(2.0)), torch.tensor([1e-9, 1e-30])])
    for block in x.split(255):
        codes, scales = eight_bit.quantise(torch.cat([block, torch.ones(1)]))
        assert scales.tolist() == [1.0]
        nearest = (block[:, None].double() - levels.double()).abs().argmin(1)
        got, best = (block.double() - levels[c.long()].double() for c in (codes[:-1], nearest))
        assert (got.abs() - best.abs() <= 2e-7 * block.abs()).all()  # as far as the border between two is one in float32


def rounded_often(x: torch.Tensor, calls: int) -> torch.Tensor:
    """Roots x [n] beside a largest of 1, a hundred blocks of them in each call, rounded by chance [100 * calls, n]."""
    block, draw = torch.cat([x, x.new_zeros(255 - len(x)), torch.ones(1)]).repeat(100), torch.Generator().manual_seed(3)
    made = (eight_bit.dequantise(*eight_bit.quantise_roots(block, draw), signed=False) for _ in range(calls))
    return torch.cat([found.view(100, 256)[:, : len(x)] for found in made])


def test_roots_become_one_of_two_levels_and_their_squares_are_right_on_average():
    """Anywhere between two levels; where one of them is likelier than 1 - 1/256 too, as the chance of the other is not lost."""
    levels, calls = eight_bit.levels(CPU, signed=False), 200
    near = levels[[1, 2, 60, 120, 200, 254]] * torch.tensor([[1.0002], [0.9998]])
    x = torch.cat([spread_out().abs()[::40], near.flatten()])
    at = torch.bucketize(x, levels, right=True).clamp(max=255)
    lower, upper = levels[at - 1], levels[at]
    found = rounded_often(x, calls)
    assert ((found == lower) | (found == upper)).all()
    chance = ((x.double() ** 2 - lower.double() ** 2) / (upper.double() ** 2 - lower.double() ** 2)).clamp(0, 1)
    off = (found == upper).double().mean(0) - chance
    spread = (chance * (1 - chance) / len(found) + 512**-2 / calls).sqrt()  # numbers of one call share what is below 1/256
    assert (off.abs() < 5 * spread).all()


def test_roots_at_a_level_stay():
    levels = eight_bit.levels(CPU, signed=False)[:255]
    assert rounded_often(levels, 2).equal(levels.expand(200, -1))


def test_blocks_do_not_see_each_other_and_the_last_may_be_short():
    x = torch.cat([torch.full((256,), 1e-6), torch.full((256,), 1e6), torch.tensor([3.0, 0.0, -3.0])])
    codes, scales = eight_bit.quantise(x)
    assert scales[:2].tolist() == pytest.approx([1e-6, 1e6])
    assert (len(codes), eight_bit.blocks(len(x))) == (515, 3)
    back = eight_bit.dequantise(codes, scales, signed=True)
    assert back[:-1].tolist() == pytest.approx(x[:-1].tolist())
    assert back[-1].item() == pytest.approx(-3.0, rel=0.0071)  # of two that are largest one has no level


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_largest_of_a_block_is_exact_whatever_its_sign(sign):
    x = sign * torch.tensor([0.3, -0.7, 1.7])
    back = eight_bit.dequantise(*eight_bit.quantise(x), signed=True)
    assert back[-1] == x[-1]
    assert back.tolist() == pytest.approx(x.tolist(), rel=0.03)


def test_nothing_is_nothing():
    for codes, scales, signed in (
        (*eight_bit.quantise(torch.zeros(300)), True),
        (*eight_bit.quantise_roots(torch.zeros(300), torch.Generator()), False),
    ):
        assert eight_bit.dequantise(codes, scales, signed=signed).tolist() == [0.0] * 300
