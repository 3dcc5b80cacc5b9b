"""Which weights are kept, and what a checkpoint remembers of them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from evenhand.train import checkpoint
from evenhand.train.best_checkpoint import Best
from evenhand.train.optim import AdamW


def weights(value: float) -> nn.Module:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(value)
    return model


@pytest.mark.parametrize(("rule", "chosen"), [("reward", 4), ("loss", 2)])
def test_the_best_is_the_highest_reward_or_the_lowest_loss_and_the_earliest_of_equals(rule, chosen):
    best, model = Best(rule=rule, start=9.0), weights(0.0)
    for step, value in ((2, 0.1), (4, 0.6), (6, 0.6), (8, 0.1)):
        with torch.no_grad():
            model.weight.fill_(step)
        best.offer(step, value, model)
    assert best.chosen == chosen
    best.restore(model)
    assert model.weight.tolist() == [[chosen, chosen]]
    assert best.as_json()["points"][1] == {"step": 4, "validation": 0.6}


def test_frozen_weights_are_neither_copied_nor_given_back():
    model = weights(1.0)
    model.bias.requires_grad_(False)
    best = Best(rule="reward")
    best.offer(1, 0.0, model)
    assert set(best.weights) == {"weight"}


def test_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match="step 3 is not a number"):
        Best(rule="loss").offer(3, math.nan, weights(0.0))


def test_a_checkpoint_brings_them_back(tmp_path):
    model, best = weights(1.0), Best(rule="loss", start=0.9)
    best.offer(2, 0.5, model)
    optimizer = AdamW(model, learning_rate=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0)
    with torch.no_grad():
        model.weight.fill_(7.0)
    best.offer(4, 0.8, model)
    state = {"kept": best.as_json()}
    checkpoint.save(tmp_path, step=4, model=model, optimizer=optimizer, state=state, more={"best": best.weights})
    folder = checkpoint.latest(tmp_path)
    assert checkpoint.tensors(folder, "nothing of that name") == {}
    again, fresh = Best(rule="loss"), weights(0.0)
    again.load(json.loads((folder / "state.json").read_text())["kept"], checkpoint.tensors(folder, "best"))
    assert again.as_json() == best.as_json()
    again.restore(fresh)
    assert fresh.weight.tolist() == [[1.0, 1.0]]


def test_a_restarted_optimizer_moves_as_a_new_one():
    """Momentum of an earlier round would carry it on; masters of narrow weights must follow the weights they were given."""
    for dtype in (torch.float32, torch.bfloat16):
        model, twin = weights(0.0).to(dtype), weights(0.0).to(dtype)
        named = {"learning_rate": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0}
        used = AdamW(model, **named)
        for _ in range(3):
            model(torch.ones(1, 2, dtype=dtype)).sum().backward()
            used.step(1.0)
        with torch.no_grad():
            for p in (*model.parameters(), *twin.parameters()):
                p.fill_(0.5)
        used.restart()
        new = AdamW(twin, **named)
        for m, optimizer in ((model, used), (twin, new)):
            (-m(torch.ones(1, 2, dtype=dtype))).sum().backward()
            optimizer.step(1.0)
        assert torch.equal(model.weight, twin.weight)
        assert not torch.equal(model.weight, torch.full_like(model.weight, 0.5))
