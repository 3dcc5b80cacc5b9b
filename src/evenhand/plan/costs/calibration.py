"""How much longer real layers take than the bound of `seconds` says: two layers of the real width, run for a moment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from evenhand.models.decode import decoder_for
from evenhand.plan.costs import seconds
from evenhand.plan.costs.machine import Machine
from evenhand.plan.costs.memory import SamplingWave
from evenhand.plan.costs.network import Network, Precision, network
from evenhand.plan.costs.probe import fastest
from evenhand.plan.costs.seconds import Speed
from evenhand.plan.costs.trace import shortened
from evenhand.train.flops import Work

LAYERS, VOCABULARY, TOKENS = 2, 256, 192
CHEAP = 3e8
"""Weights of the layers up to which they are run."""
ROWS, NEW = 8, (4, 20)
"""Of the sampling that is timed: a few steps, and some more."""


def calibrated(config: Any, precision: Precision, machine: Machine) -> Speed:
    """The machine with its factors for layers of this width; without them where the layers are too large to try, or elsewhere."""
    short = shortened(config, LAYERS)
    short.get_text_config().vocab_size = VOCABULARY
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(short.get_text_config(), name, None)
    small = network(short, precision)
    if machine.kind != "cpu" or not machine.measured or small.parameters > CHEAP:
        return Speed(machine=machine)
    before = torch.get_num_threads()
    torch.set_num_threads(machine.threads)
    try:
        return _measured(short, small, Speed(machine=machine))
    finally:
        torch.set_num_threads(before)


def _measured(config: Any, small: Network, bound: Speed) -> Speed:
    from transformers import AutoModelForCausalLM

    from evenhand.models.load import set_matmul
    from evenhand.models.policy import Policy

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, small.precision.dtype))
    policy = Policy(hf)
    set_matmul(policy, small.precision.matmul)
    third = TOKENS // 3
    work = Work(tokens=TOKENS, scored=0, pairs=third * (third + 1) // 2 + 2 * (third * third + third * (third + 1) // 2))
    train = fastest(lambda: a_pass(policy)) / seconds.learn(small, work, bound)
    waves = [SamplingWave(rows=ROWS, prompt=8, new=new, group=ROWS) for new in NEW]
    said = [seconds.sample(small, wave, replace(bound, train=train)) for wave in waves]
    calls = seconds.CALL * seconds.CALLS_PER_LAYER * LAYERS * (NEW[1] - NEW[0])
    took = [fastest(lambda n=new: _sampled(policy, n)) for new in NEW]  # type: ignore[misc]
    decode = (took[1] - took[0] - calls) / (said[1] - said[0] - calls)  # of the steps alone: what comes before them is in both
    return replace(bound, train=train, decode=max(1.0, decode))


def a_pass(policy: Any) -> None:
    """A packed row, forward and back through the trunk."""
    from evenhand.data.batch import pack
    from evenhand.types import Completion, Group, Prompt, TokenGroup, Tokens

    third = TOKENS // 3
    answer = Tokens(ids=tuple(range(third)), mask=(True,) * third)
    group = Group(prompt=Prompt(content=""), completions=(Completion(content=""),) * 2)
    policy.states(
        pack([TokenGroup(prompt=tuple(range(third)), completions=(answer, answer), group=group)])
    ).hidden.sum().backward()
    for parameter in policy.parameters():
        parameter.grad = None


def _sampled(policy: Any, new: int) -> None:
    """A prompt of 8 tokens and a few steps of some rows that continue it."""
    decoder = decoder_for(policy.hf)
    with decoder.ready(policy.matmul_dtype):
        session = decoder.open([list(range(8))], [0] * ROWS)
        for _ in range(new):
            session.step(torch.zeros(ROWS, dtype=torch.long))
