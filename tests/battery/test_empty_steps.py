"""A step that has nothing to learn from moves nothing, and does not end the run."""

from __future__ import annotations

from dataclasses import replace

import torch

from evenhand import methods
from evenhand.train import loop
from evenhand.train.examples import micro_batches
from tests.battery.test_bandit import ANSWERS, REF, start
from tests.battery.tree import fit_online
from tests.battery.world import items_for, network


def test_all_pairs_tied():
    """Every answer is worth the same: best against worst finds no pair, at any step."""
    method = methods.build("online_dpo", {}, steps=5, max_tokens=8)
    found = fit_online(method, dict.fromkeys(ANSWERS, 1.0), start(), steps=5)
    torch.testing.assert_close(found.distribution().detach(), REF)


def test_all_groups_flat():
    method = methods.build("rloo", {"kl": 0.0}, steps=5, max_tokens=8)
    found = fit_online(method, dict.fromkeys(ANSWERS, 1.0), start(), steps=5)
    torch.testing.assert_close(found.distribution().detach(), REF)


def test_all_rows_denominator_only():
    method = methods.build("rloo", {"kl": 0.0}, steps=5, max_tokens=8)
    items = [replace(i, denominator_only=True) for i in items_for(method)]
    model = network(method)
    loss, metrics = loop.accumulate(model, method.objective, micro_batches(items, 100))
    assert loss == 0
    assert metrics == {}
    assert all(p.grad is None for p in model.parameters())
