"""Everything a method does in a step, and sampling, with the model on another device: nothing is left behind on the processor,
the results are the same, and the host waits for the device as rarely as it says it does."""

from __future__ import annotations

import math

import pytest
import torch

from evenhand import methods
from evenhand.data.template import Renderer
from evenhand.engines.decode_batch import STEPS_PER_LOOK
from evenhand.engines.local import LocalEngine
from evenhand.train import loop
from evenhand.train.examples import micro_batches
from evenhand.train.logprobs import read
from evenhand.types import Head, Prompt, Sampling
from tests.battery.variants import lanes
from tests.battery.world import CONFIG, items_for, network
from tests.pretended import HERE, There, move, pretended

PER_LOOK, AT_THE_ENDS = 16, 16
"""How often the host may wait while sampling: where it looks which rows have ended and drops them, and before and after."""
CHOOSING = {"clip_cov", "kl_cov", "top_entropy"}
"""They choose tokens over the whole step before its backward passes, by a rule that looks at them on the processor."""
METHODS = {name: methods.build(name, {}, steps=6, max_tokens=8) for name in methods.METHODS}


def one_step(model, objective, batches):
    """Loss and metrics of a step, without its backward pass."""
    loss, metrics = loop.accumulate(model, objective, batches)
    return loop.to_floats({"loss": loss} | loop.means(metrics))


@pytest.fixture(autouse=True)
def _forward_only(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "backward", lambda *_: None)


@pytest.mark.parametrize("name", lanes(sorted(METHODS)))
def test_a_step_of_every_method(name, monkeypatch):
    method = METHODS[name]
    model, batches = network(method), micro_batches(items_for(method), 30)
    expected = one_step(model, method.objective, batches)
    with pretended(monkeypatch) as device:
        move(model)
        if getattr(model, "frozen", None) is not None:  # looked at, not owned
            move(model.frozen)
        found = one_step(model, method.objective, [b.to(HERE) for b in batches])
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    if name not in CHOOSING:
        assert device.waits == ["to cpu"], "one transfer of all metrics, and no other wait"


def test_log_probs_come_back_to_the_processor(monkeypatch):
    method = METHODS["ppo"]
    model, items = network(method), [i for i in items_for(method) if not i.denominator_only]
    heads = frozenset({Head.LOGP, Head.VALUE})
    named = {"tokens_per_microbatch": 30, "temperature": 0.7}
    expected = read(model, items, heads, device="cpu", **named)
    with pretended(monkeypatch):
        move(model)
        found = read(model, items, heads, device=HERE, **named)
    for head in heads:
        flat = [[row for rows in each[head] for row in rows] for each in (found, expected)]
        assert not any(isinstance(row, There) for row in flat[0])
        torch.testing.assert_close(flat[0], flat[1], rtol=1e-5, atol=1e-6)


SAMPLINGS = {"plain": {}, "nucleus": {"top_p": 0.8}, "top-k": {"top_k": 5}, "greedy": {"temperature": 0.0}}


@pytest.mark.parametrize("kind", sorted(SAMPLINGS))
def test_sampling(kind, monkeypatch):
    from benchmarks.corpus import prompts, tokenizer
    from evenhand.models.load import new_policy

    policy = new_policy(CONFIG | {"vocab_size": 50}, seed=0, device="cpu")
    engine_of = lambda: LocalEngine(policy, Renderer(tokenizer(50)))  # noqa: E731
    asked = [Prompt(content=text) for text in prompts(50, 3, 6) + prompts(50, 2, 9, seed=1)]
    sampling = Sampling(**{"max_tokens": 40} | SAMPLINGS[kind])
    expected = engine_of().generate(asked, 3, sampling)
    with pretended(monkeypatch) as device:
        move(policy)
        engine = engine_of()
        engine.generate(asked, 3, sampling)  # the first call checks the model
        device.waits.clear()
        found = engine.generate(asked, 3, sampling)
    assert [[c.tokens for c in g.completions] for g in found] == [[c.tokens for c in g.completions] for g in expected]
    looks = math.ceil(sampling.max_tokens / STEPS_PER_LOOK)
    assert len(device.waits) <= PER_LOOK * looks + AT_THE_ENDS


def test_without_a_stop_token_sampling_waits_no_more_for_longer_answers(monkeypatch):
    from benchmarks.corpus import prompts
    from benchmarks.ours import endless
    from evenhand.models.load import new_policy

    policy = new_policy(CONFIG | {"vocab_size": 50}, seed=0, device="cpu")
    engine = LocalEngine(policy, endless(50))
    asked = [Prompt(content=text) for text in prompts(50, 3, 6)]
    waits = []
    with pretended(monkeypatch) as device:
        move(policy)
        for max_tokens in (1, 12, 40):  # the first call also checks the model
            device.waits.clear()
            engine.generate(asked, 2, Sampling(max_tokens=max_tokens))
            waits.append(list(device.waits))
    assert waits[1] == waits[2]
    assert len(waits[1]) <= AT_THE_ENDS
