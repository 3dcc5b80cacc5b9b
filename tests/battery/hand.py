"""One real step of a rollout method off its policy, and the raw samples it was made from: what `test_by_hand` writes down again.

The samples come from the real engine and source at a temperature that is not 1, some with truncated sampling; some answers are
cut by the limit, some cannot be scored. The weights move between the rollout and the step.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from evenhand import methods
from evenhand.engines.counted import Counted
from evenhand.engines.local import LocalEngine
from evenhand.rewards.pointwise import pointwise
from evenhand.seeding import generator
from evenhand.train import loop
from evenhand.train.cost_accounting import Ledger
from evenhand.train.logprobs import read
from evenhand.train.rollouts.reader import Reader
from evenhand.train.rollouts.sampler import Sampler
from evenhand.train.rollouts.source import RolloutSource
from evenhand.types import Batch, Completion, Finish, Group, Head, Prompt, Sampling
from tests.battery.world import network
from tests.golden.runs import Numbers

CONFIG = {
    "model_type": "gpt_neox", "vocab_size": 8, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.5,
}  # fmt: skip
PROMPTS = [Prompt(content=" ".join(map(str, p))) for p in itertools.product((1, 2, 3, 4, 7), (4, 5, 1), (2, 3, 6, 7))]
LIMIT, TEMPERATURE = 5, 0.7


def reward_of(prompt: Prompt | None, completion: Completion) -> float | None:
    """Any function of the answer, which some answers do not have."""
    ids = completion.tokens
    if ids[-1] == 6:
        return None
    return 0.7 * (ids[0] == 2) - 0.4 * (ids[-1] == 3) + 0.05 * len(ids) + 0.1 * (ids[0] % 3)


@dataclass
class Sample:
    """One answer of the rollout. Log-probs [n] of its tokens under the weights of the rollout, the reference, the sampler."""

    group: int
    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    cut: bool
    reward: float
    old: Tensor
    ref: Tensor
    behaviour: Tensor
    credit: Any = 0.0


@dataclass
class Stepped:
    """What the real loop made of one step, and what it was made from."""

    method: methods.Method
    model: torch.nn.Module
    before: torch.nn.Module
    frozen: torch.nn.Module
    batches: Sequence[Batch]
    samples: list[Sample]
    loss: Tensor
    gradient: Tensor

    @property
    def temperature(self) -> float:
        return self.method.logit_temperature(TEMPERATURE)

    def taken(self) -> list[Sample]:
        """The samples that the step's batches hold, each as often as they do."""
        held = Counter(answer for batch in self.batches for answer in answers_of(batch))
        out = []
        for sample in self.samples:
            if held[sample.prompt, sample.ids]:
                held[sample.prompt, sample.ids] -= 1
                out.append(sample)
        assert not +held
        return out


def answers_of(batch: Batch) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    spans = [(batch.layout.prompts[owner], c) for c, owner in zip(batch.layout.completions, batch.layout.owner, strict=True)]
    return [tuple(tuple(batch.ids[s.start : s.stop].tolist()) for s in pair) for pair in spans]


def distributions(model: torch.nn.Module, prompt: Sequence[int], ids: Sequence[int], temperature: float) -> Tensor:
    """log softmax(logits / T) [n, V] at the states before each token of the answer, by the plain network."""
    logits = model.hf(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].double() / temperature
    return logits.log_softmax(-1)[len(prompt) - 1 : -1]


def logps(model: torch.nn.Module, prompt: Sequence[int], ids: Sequence[int], temperature: float) -> Tensor:
    return distributions(model, prompt, ids, temperature)[range(len(ids)), list(ids)]


def stepped(name: str, parameters: Mapping[str, Any], *, update: int = 1, top_p: float = 1.0) -> Stepped:
    """A rollout, the weights moved, and the loop's gradient of its `update`-th step."""
    method = methods.build(name, parameters, steps=8, max_tokens=LIMIT)
    model, frozen = network(method, 0, CONFIG), network(replace(method, network="policy"), 3, CONFIG)
    if method.compares_exactly:
        model.compared_to(frozen)
    temperature = method.logit_temperature(TEMPERATURE)
    asked = partial(read, tokens_per_microbatch=2000, temperature=temperature, device="cpu")
    seen: list[Group] = []
    engine = Counted(LocalEngine(model, Numbers()), lambda groups, _: seen.extend(groups))
    source = RolloutSource(
        method=method, prompts=PROMPTS, reward=pointwise(reward_of),
        sampler=Sampler(engine=engine, sampling=Sampling(max_tokens=LIMIT, temperature=TEMPERATURE, top_p=top_p)),
        reader=Reader(
            tokenise=Numbers().tokenise, read=lambda heads, items: asked(model, items, heads),
            reference=lambda items: asked(frozen, items, frozenset({Head.LOGP}))[Head.LOGP],
        ),
        prompts_per_step=6, tokens_per_microbatch=60, seed=7, ledger=Ledger(),
    )  # fmt: skip
    before = copy.deepcopy(model)
    steps = [source.step(0)]
    draw = generator("moved")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype))
    steps += [source.step(i) for i in range(1, update + 1)]
    loss, _ = loop.accumulate(model, method.objective, steps[update].batches, temperature)
    samples = [
        Sample(
            n, prompt, c.tokens, c.finish is Finish.LENGTH, float("nan") if (r := reward_of(None, c)) is None else r,
            *(logps(m, prompt, c.tokens, temperature).detach() for m in (before, frozen)),
            torch.tensor(c.behaviour_logp, dtype=torch.float64),
        )
        for n, group in enumerate(seen)
        for prompt in [Numbers().prompt_ids(group.prompt)]
        for c in group.completions
    ]  # fmt: skip
    return Stepped(method, model, before, frozen, steps[update].batches, samples, loss, flat_gradient(model))


def flat_gradient(model: torch.nn.Module) -> Tensor:
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([p.double().flatten() for p in parts])


def agrees(done: Stepped, by_hand: Tensor) -> None:
    done.model.zero_grad(set_to_none=True)
    by_hand.backward()
    known = flat_gradient(done.model)
    assert known.abs().max() > 1e-3, "a test of a zero gradient proves nothing"
    torch.testing.assert_close(done.loss.double(), by_hand.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(done.gradient, known, rtol=0, atol=2e-5 * float(known.abs().max()))
