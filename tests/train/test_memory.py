"""What an objective carries from step to step: it moves, it is in the checkpoint, and a resumed run ends with the same bits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from evenhand import methods
from evenhand.protocols import CARRIED
from evenhand.stages import resume
from evenhand.train import optim
from evenhand.train.cost_accounting import Ledger
from evenhand.train.loop import Loop
from evenhand.train.monitor import Monitor
from evenhand.train.offline import FixedSource
from evenhand.train.ranks import ONE
from tests.battery.world import items_for, network

STATEFUL = ("bco", "beta_dpo", "alpha_dpo")


def training(name: str) -> SimpleNamespace:
    """What a checkpoint is made of, around the tiny network."""
    method = methods.build(name, {}, steps=6, max_tokens=8)
    model = network(method).float()
    source = FixedSource(
        items=items_for(method, prompts=9), prompts_per_step=4, tokens_per_microbatch=30, seed=0, ledger=Ledger(),
        uniform=name == "beta_dpo",
    )  # fmt: skip
    optimizer = optim.AdamW(model, learning_rate=5e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0)
    memory: dict[str, torch.Tensor] = {}
    loop = Loop(
        model=model, objective=method.objective, source=source, optimizer=optimizer, factor=lambda step: 1.0, memory=memory
    )
    run = SimpleNamespace(model=model, memory=memory, device="cpu", ledger=Ledger(), ranks=ONE)
    return SimpleNamespace(run=run, source=source, loop=loop, keeper=None, monitor=Monitor())


def weights(made: SimpleNamespace) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in made.run.model.parameters()])


@pytest.mark.parametrize("name", STATEFUL)
def test_a_resumed_run_ends_with_the_same_bits(name, tmp_path):
    whole, first, second = training(name), training(name), training(name)
    list(whole.loop.run(0, 6))
    list(first.loop.run(0, 3))
    resume.save(first, tmp_path, 3)
    resume.restore(second, resume.Saved.newest(tmp_path))
    list(second.loop.run(3, 6))
    assert torch.equal(weights(second), weights(whole))
    assert whole.run.memory.keys() == second.run.memory.keys() != set()
    assert all(torch.equal(whole.run.memory[k], second.run.memory[k]) for k in whole.run.memory)


@pytest.mark.parametrize("name", STATEFUL)
def test_forgetting_is_noticed(name, tmp_path):
    """The same without the memory: other weights, so that the test above proves something."""
    whole, forgetful = training(name), training(name)
    list(whole.loop.run(0, 6))
    for start in (0, 3):
        forgetful.run.memory.clear()
        list(forgetful.loop.run(start, start + 3))
    assert not torch.equal(weights(forgetful), weights(whole))


def test_bco_remembers_the_sum_of_all_rewards():
    made = training("bco")
    list(made.loop.run(0, 2))
    assert float(made.run.memory[CARRIED + "answers"]) == 8.0
    assert set(made.run.memory) == {CARRIED + "answers", CARRIED + "reward"}
