"""What is counted for budgets: every pass under what it is for, and the seconds of training itself."""

from __future__ import annotations

import json

import pytest
import torch

from evenhand.models.load import new_policy
from evenhand.train.cost_accounting import Ledger
from evenhand.train.examples import Example, assemble
from evenhand.train.flops import backward, forward, shape_of, work
from evenhand.train.logprobs import read
from evenhand.types import Completion, Group, Head, Prompt, TokenGroup, Tokens
from tests.train.test_flops import CONFIG

LOGP = frozenset({Head.LOGP})


def item(prompt: int, *lengths: int) -> Example:
    completions = tuple(Tokens(ids=(1,) * n, mask=(True,) * n) for n in lengths)
    texts = tuple(Completion(content="x") for _ in lengths)
    group = Group(prompt=Prompt(content="p"), completions=texts)
    return Example(tokens=TokenGroup(prompt=(2,) * prompt, completions=completions, group=group))


@pytest.fixture
def policy():
    return new_policy(CONFIG, seed=0, device="cpu")


def test_every_pass_is_counted_once_under_what_it_is_for(policy):
    ledger, rows = Ledger(), [item(3, 2, 2), item(4, 1)]
    ledger.counts(policy)
    shape, all_of_it = shape_of(policy), work([3, 4], [2, 2, 1], [0, 0, 1])
    with ledger.phase("step"):
        policy(assemble(rows), LOGP).logp.sum().backward()
        with ledger.phase("score"), ledger.passes("reference"):
            read(policy, rows, LOGP, tokens_per_microbatch=100, temperature=1.0, device="cpu")
        with ledger.phase("score"), torch.no_grad():
            policy(assemble(rows[:1]), LOGP)
    once = forward(shape, all_of_it)
    assert ledger.flops_by_phase == {
        "train": once + backward(shape, all_of_it),
        "reference": once,
        "reward": forward(shape, work([3], [2, 2], [0, 0])),
    }
    assert ledger.flops == sum(ledger.flops_by_phase.values())


@pytest.mark.parametrize("phase", ["load", "watch", "save"])
def test_what_is_looked_at_beside_costs_the_method_nothing(policy, phase):
    ledger = Ledger()
    ledger.counts(policy)
    with ledger.phase(phase), ledger.passes("reference"), torch.no_grad():
        policy(assemble([item(3, 2)]), LOGP)
    assert ledger.flops == 0
    assert ledger.seconds.keys() == {phase}


def test_a_resumed_run_goes_on_counting():
    ledger = Ledger(tokens_trained=7, seconds={"step": 2.5})
    with ledger.passes("generate"):
        ledger.spend(100.0)
    again = Ledger.from_dict(json.loads(json.dumps(ledger.as_dict())))
    again.flops_by_phase["generate"] += 1.0
    assert (again.flops, again.tokens_trained, again.closed()["seconds"]) == (101.0, 7, {"train": 2.5})


def test_training_is_what_steps_took_less_sampling_and_scoring():
    spent = Ledger(seconds={"step": 10.0, "generate": 3.0, "score": 1.5, "watch": 0.5, "load": 0.25}).closed()
    assert spent["seconds"] == {"generate": 3.0, "score": 1.5, "watch": 0.5, "load": 0.25, "train": 5.5}


def test_seconds_are_those_between_the_beginning_and_the_end_of_every_phase_of_that_name(monkeypatch):
    clock = iter([100.0, 103.5, 200.0, 201.0])
    monkeypatch.setattr("evenhand.train.cost_accounting.time.perf_counter", lambda: next(clock))
    ledger = Ledger()
    for _ in range(2):
        with ledger.phase("step"):
            pass
    assert ledger.seconds == {"step": 4.5}


def test_a_frozen_model_is_counted_without_a_backward_pass(policy):
    policy.requires_grad_(False)
    ledger = Ledger()
    ledger.counts(policy)(assemble([item(3, 2)]), LOGP)
    assert ledger.flops == forward(shape_of(policy), work([3], [2], [0]))
