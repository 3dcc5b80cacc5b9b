"""AdamW with moments in eight bits: beside torch's, its memory, what a kill leaves, and weights that are rounded by chance."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from evenhand.core.eight_bit import dequantise
from evenhand.errors import UserError
from evenhand.train.config import Train
from evenhand.train.optim import AdamW
from evenhand.train.optim_8bit import AdamW8bit
from evenhand.train.optimizers import optimizer_for, state_bytes

SETTINGS = {"learning_rate": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}


def made(model: nn.Module, **changes) -> AdamW8bit:
    return AdamW8bit(model, **SETTINGS | {"seed": 0} | changes)


def moved(model: nn.Module, optimizer, steps: int, *, first: int = 0, decades: int = 4) -> nn.Module:
    for number in range(first, first + steps):
        draw = torch.Generator().manual_seed(number)
        for p in model.parameters():
            sizes = 10.0 ** (-decades * torch.rand(p.shape, generator=torch.Generator().manual_seed(7)))
            p.grad = (sizes * torch.randn(p.shape, generator=draw)).to(p.dtype)
        optimizer.step(1.0)
    return model


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().float() for p in model.parameters()])


def test_small_parameters_move_as_under_adamw():
    start = nn.Linear(30, 40)
    ours, torchs = copy.deepcopy(start), copy.deepcopy(start)
    moved(ours, made(ours), 20), moved(torchs, AdamW(torchs, **SETTINGS), 20)
    assert torch.allclose(weights(ours), weights(torchs), rtol=1e-5, atol=1e-7)
    assert (weights(ours) - weights(start)).abs().max() > 0.01


@pytest.mark.parametrize(("decades", "allowed"), [(0, 0.02), (4, 0.15)])
@pytest.mark.parametrize("size", [(64, 64), (129, 77), (700, 500)])
def test_large_ones_nearly_so(size, decades, allowed):
    """Gradients within a block are of like size (1 % off), or differ by up to `decades` decades: small ones have few levels."""
    start = nn.Linear(*size, bias=False)
    ours, torchs = copy.deepcopy(start), copy.deepcopy(start)
    moved(ours, made(ours), 20, decades=decades), moved(torchs, AdamW(torchs, **SETTINGS), 20, decades=decades)
    path, gap = weights(torchs) - weights(start), weights(ours) - weights(torchs)
    assert gap.norm() < allowed * path.norm()


@pytest.mark.parametrize(("small", "allowed"), [(1e-3, 0.16), (1e-4, 0.3), (1e-5, 0.5)])
def test_a_weight_with_a_small_gradient_is_not_thrown(small, allowed):
    """Beside 1: a second moment kept as it is would be rounded to nothing, and each step be ten times too large. Where levels are
    far apart, a root that is rounded by chance strays from its mean."""
    layer = nn.Linear(4096, 1, bias=False)
    before = weights(layer)
    optimizer = made(layer, learning_rate=1e-3, weight_decay=0.0)
    for _ in range(30):
        layer.weight.grad = torch.where(torch.arange(4096) % 2 == 0, 1.0, small)[None].clone()
        optimizer.step(1.0)
    path = (weights(layer) - before) / -30e-3
    assert torch.allclose(path, torch.ones(4096), rtol=allowed)
    assert path.mean().item() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("b1", [0.9, 0.99])
def test_the_mean_of_a_constant_gradient_is_that_gradient(sign, b1):
    """Rounding must not shrink a block every time, whose mean would end at 0.93 or 0.59 of what it is the mean of."""
    layer = nn.Linear(4096, 1, bias=False)
    gradient = sign * (1 - 0.5 * torch.rand(1, 4096, generator=torch.Generator().manual_seed(0)))
    optimizer = made(layer, learning_rate=1e-3, betas=(b1, 0.999), weight_decay=0.0)
    for _ in range(1000):
        layer.weight.grad = gradient.clone()
        optimizer.step(1.0)
    held = optimizer.tensors()
    mean = dequantise(held["first.weight"], held["first_scale.weight"], signed=True)
    assert torch.allclose(mean, gradient[0], rtol=0.02)


@pytest.mark.parametrize("factor", [0.1, 0.01, 10.0])
def test_the_second_moment_follows_gradients_that_change_for_half_of_a_block(factor):
    """b2 = 0.999 and gradients of +-1, then +-factor for every other weight: v = 1 - b2^t, then factor^2 + (v - factor^2) b2^t.
    Rounded to the nearest it was 5 to 20 times that where gradients fell, because no update changes it by half a level."""
    layer = nn.Linear(4096, 1, bias=False)
    optimizer = made(layer, learning_rate=1e-3, betas=(0.9, 0.999), weight_decay=0.0)
    sizes, expected = torch.ones(1, 4096), torch.zeros(2, dtype=torch.float64)
    for number, steps in enumerate((300, 2500)):
        sizes[:, ::2] = factor if number else 1.0
        expected = sizes[0, :2].double() ** 2 + (expected - sizes[0, :2].double() ** 2) * 0.999**steps
        for step in range(steps):
            layer.weight.grad = sizes * (-1) ** step
            optimizer.step(1.0)
    held = optimizer.tensors()
    roots = dequantise(held["root.weight"], held["root_scale.weight"], signed=False).double()
    assert roots.view(-1, 2).square().mean(0).tolist() == pytest.approx(expected.tolist(), rel=0.05)
    assert (roots.view(-1, 2).median(0).values / expected.sqrt()).tolist() == pytest.approx([1.0, 1.0], rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_that_is_not_contiguous_moves_as_one_that_is(dtype):
    plain, turned = nn.Linear(100, 90, bias=False).to(dtype), nn.Linear(100, 90, bias=False).to(dtype)
    turned.weight = nn.Parameter(plain.weight.detach().t().contiguous().t())
    assert not turned.weight.is_contiguous()
    for layer in (plain, turned):
        moved(layer, made(layer), 3)
    assert turned.weight.equal(plain.weight)


def test_memory_is_as_stated():
    layer = nn.Linear(1024, 1024, bias=False).to(torch.bfloat16)
    optimizer = made(layer)
    moved(layer, optimizer, 1)
    held = sum(t.numel() * t.element_size() for name, t in optimizer.tensors().items() if name != "moved") / 1024**2
    assert held == pytest.approx(sum(state_bytes("adamw_8bit", 2)), abs=1e-4) == pytest.approx(2.03125, abs=1e-4)
    other = AdamW(layer, **SETTINGS)
    moved(layer, other, 1)
    held = sum(t.numel() * t.element_size() for t in other.tensors().values()) / 1024**2
    assert held == pytest.approx(sum(state_bytes("adamw", 2)), abs=1e-4) == pytest.approx(12, abs=1e-4)


def test_updates_below_half_a_step_of_bfloat16_are_not_lost():
    """100 updates of 1e-4 to weights of 1, whose neighbours are 1 - 2^-8 and 1 + 2^-7: rounded to the nearest they would stay."""
    layer = nn.Linear(64, 128, bias=False).to(torch.bfloat16)
    nn.init.ones_(layer.weight)
    optimizer = made(layer, learning_rate=1e-4, weight_decay=0.0)
    for _ in range(100):
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step(1.0)
    spread = (100 * 1e-4 * 2**-8) ** 0.5  # of one weight: the variance of a step is at most update * gap
    assert weights(layer).mean().item() == pytest.approx(1 - 100e-4, abs=5 * spread / 8192**0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_saved_goes_on_with_the_same_bits(dtype):
    start = nn.Sequential(nn.Linear(100, 90), nn.Linear(90, 3)).to(dtype)
    whole = copy.deepcopy(start)
    moved(whole, made(whole), 5)

    half = copy.deepcopy(start)
    optimizer = made(half)
    moved(half, optimizer, 3)
    kept = {name: t.clone() for name, t in optimizer.tensors().items()}
    after = made(half)
    for name, place in after.places(kept).items():
        place.copy_(kept[name])
    assert after.tensors().keys() == kept.keys()
    moved(half, after, 2, first=3)
    assert weights(half).equal(weights(whole))


def test_a_restart_forgets_moments_and_not_which_numbers_were_drawn():
    layer = nn.Linear(100, 100).to(torch.bfloat16)
    optimizer = made(layer)
    moved(layer, optimizer, 2)
    optimizer.restart()
    assert {name: int(t) for name, t in optimizer.tensors().items()} == {"moved": 2}


def test_which_is_used_is_read_from_the_settings():
    layer = nn.Linear(2, 2)
    assert isinstance(optimizer_for(layer, Train(learning_rate=0.1), seed=0), AdamW)
    assert isinstance(optimizer_for(layer, Train(learning_rate=0.1, optimizer="adamw_8bit"), seed=0), AdamW8bit)


def test_float16_is_refused():
    with pytest.raises(UserError, match=r"weights in float16 \(weight\) are not rounded by chance") as refused:
        made(nn.Linear(2, 2).to(torch.float16))
    assert "bfloat16" in refused.value.fix
