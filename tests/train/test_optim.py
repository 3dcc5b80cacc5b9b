from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from evenhand.errors import UserError
from evenhand.train.optim import AdamW, clip_gradients, schedule


def test_schedules_at_their_corners():
    cosine = schedule("cosine", warmup=0, steps=10)
    assert cosine(0) == 1.0
    assert cosine(5) == pytest.approx(0.5)
    assert cosine(10) == pytest.approx(0.0)
    decay = schedule("step", warmup=0, steps=9999, factor=0.9, every=1500)
    assert [decay(i) for i in (0, 1499, 1500, 3000)] == pytest.approx([1.0, 1.0, 0.9, 0.81])
    assert schedule("inverse_sqrt", warmup=4, steps=100)(4 + 3) == pytest.approx(0.5)
    assert schedule("constant", warmup=4, steps=100)(0) == 0.25
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        schedule("cosin", warmup=0, steps=1)


def one_weight(dtype: torch.dtype, value: float = 1.0) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False, dtype=dtype)
    with torch.no_grad():
        layer.weight.fill_(value)
    return layer


def adamw(layer: nn.Module, **changes) -> AdamW:
    settings = {"learning_rate": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    return AdamW(layer, **settings | changes)


def test_first_step_is_the_learning_rate_against_the_sign_of_the_gradient():
    layer = one_weight(torch.float32)
    layer.weight.grad = torch.tensor([[3.0]])
    adamw(layer).step(0.5)
    assert layer.weight.item() == pytest.approx(1.0 - 0.1 * 0.5)
    assert layer.weight.grad is None


def test_decoupled_weight_decay():
    layer = one_weight(torch.float32, 2.0)
    layer.weight.grad = torch.tensor([[1e-30]])
    adamw(layer, weight_decay=0.5, eps=1.0).step(1.0)
    assert layer.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5))


def test_small_updates_survive_in_bfloat16():
    """300 steps of 1e-5 move a bf16 weight of 1; without master weights each would round away."""
    layer = one_weight(torch.bfloat16)
    optimizer = adamw(layer, learning_rate=1e-5)
    for _ in range(300):
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step(1.0)
    assert optimizer.master["weight"].item() == pytest.approx(1 - 300e-5, abs=1e-4)
    assert layer.weight.item() < 1.0


def test_state_survives_a_round_trip_exactly():
    torch.manual_seed(0)
    layers = [nn.Linear(3, 2), nn.Linear(3, 2)]
    optimizers = [adamw(layer) for layer in layers]
    grads = [[torch.randn_like(p) for p in layers[0].parameters()] for _ in range(4)]

    def step(i, g):
        for p, grad in zip(layers[i].parameters(), g, strict=True):
            p.grad = grad.clone()
        optimizers[i].step(1.0)

    step(0, grads[0]), step(0, grads[1])
    layers[1].load_state_dict(layers[0].state_dict())
    kept = {k: v.clone() for k, v in optimizers[0].tensors().items()}
    for name, place in optimizers[1].places(kept.keys()).items():
        place.copy_(kept[name])
    for i in (0, 1):
        step(i, grads[2]), step(i, grads[3])
    for a, b in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_clipping_reports_the_norm_before():
    layer = one_weight(torch.float32)
    layer.weight.grad = torch.tensor([[-4.0]])
    assert clip_gradients(layer.parameters(), 1.0).item() == pytest.approx(4.0)
    assert layer.weight.grad.item() == pytest.approx(-1.0, rel=1e-5)
    layer.weight.grad = torch.tensor([[-4.0]])
    clip_gradients(layer.parameters(), 0.0)
    assert layer.weight.grad.item() == -4.0
    assert not math.isnan(layer.weight.grad.item())
