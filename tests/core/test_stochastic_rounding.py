"""Rounding by chance: only to the two neighbours, with the mean of the number itself."""

from __future__ import annotations

import pytest
import torch

from evenhand.core.stochastic_rounding import to_bfloat16


def rounded(x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return to_bfloat16(x, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("x", [1.001, -1.001, 3.14159, 1e-30, -2.5e20, 1e-40])
def test_the_mean_is_the_number_and_only_its_neighbours_occur(x):
    count = 1 << 16
    found = rounded(torch.full((count,), x, dtype=torch.float32)).double()
    exact = torch.tensor(x, dtype=torch.float32)
    lower = torch.tensor([exact.view(torch.int32).item() & -65536], dtype=torch.int32).view(torch.float32).double()
    upper = torch.tensor([(exact.view(torch.int32).item() & -65536) + 65536], dtype=torch.int32).view(torch.float32).double()
    assert set(found.tolist()) == {lower.item(), upper.item()}
    gap = (upper - lower).abs().item()
    assert abs(found.mean().item() - exact.double().item()) < 5 * 0.5 * gap / count**0.5


def test_what_bfloat16_holds_stays():
    held = torch.tensor([0.0, -0.0, 1.0, -1.5, 2.0**-126, torch.inf, -torch.inf])
    for seed in range(20):
        assert rounded(held, seed).float().equal(held)
    assert rounded(torch.tensor([torch.nan])).isnan().all()


def test_the_same_generator_gives_the_same_bits():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    assert rounded(x, 3).equal(rounded(x, 3))
    assert not rounded(x, 3).equal(rounded(x, 4))
