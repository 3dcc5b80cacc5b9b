"""Sampled gradients of the real source, engine and objectives against exact ones, by listing every answer of a tiny transformer.

The exact side shares no code with the methods: it is the derivative of an expectation over all 13 answers to each of two prompts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from evenhand import methods
from evenhand.engines.local import LocalEngine
from evenhand.methods import Method
from evenhand.models.heads import ValuePolicy
from evenhand.rewards.pointwise import pointwise
from evenhand.seeding import generator
from evenhand.train import loop
from evenhand.train.cost_accounting import Ledger
from evenhand.train.examples import Example, assemble
from evenhand.train.logprobs import read
from evenhand.train.rollouts.reader import Reader
from evenhand.train.rollouts.sampler import Sampler
from evenhand.train.rollouts.source import RolloutSource
from evenhand.types import Completion, Group, Head, Prompt, Sampling
from tests.battery.world import logps_of, network
from tests.golden.runs import Numbers

CONFIG = {
    "model_type": "gpt_neox", "vocab_size": 4, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 16, "initializer_range": 0.6,
}  # fmt: skip
ANSWERS = [(0,), *((a, 0) for a in (1, 2, 3)), *itertools.product((1, 2, 3), repeat=2)]
"""All answers of at most two tokens over {1, 2, 3}; 0 stops."""
PROMPTS = [Prompt(content="1 2"), Prompt(content="3")]
KL, VALUE, STEPS, PROMPTS_PER_STEP = 0.3, 0.05, 40, 32


def reward_of(prompt: Prompt, completion: Completion) -> float:
    """Any fixed function of prompt and answer."""
    ids = completion.tokens or ()
    return 0.8 * (ids[0] == 2) - 0.5 * (ids[-1] == 3) + 0.3 * (ids == (3, 1)) * (prompt.text == "3") - 0.1 * len(ids)


@dataclass(frozen=True)
class World:
    """Log-probs [2, 13, 2] of every answer under policy (with gradient) and reference, mask, values, rewards [2, 13]."""

    model: torch.nn.Module
    frozen: torch.nn.Module
    logp: Tensor
    ref: Tensor
    mask: Tensor
    value: Tensor | None
    reward: Tensor

    @property
    def chance(self) -> Tensor:
        return self.logp.detach().sum(-1).exp()

    def gradient(self, loss: Tensor) -> Tensor:
        found = torch.autograd.grad(loss, list(self.model.parameters()), allow_unused=True)
        pairs = zip(found, self.model.parameters(), strict=True)
        return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in pairs]).double()


def world(method: Method) -> World:
    model = network(method, 0, CONFIG)
    if isinstance(model, ValuePolicy):
        model.value_head.weight.data.mul_(0.1)  # values as large as rewards, so that the policy's part can be seen beside them
    frozen = network(replace(method, network="policy"), 1, CONFIG)
    if method.compares_exactly:
        model.compared_to(frozen)
    groups = [Group(prompt=p, completions=tuple(Completion(content=str(a), tokens=a) for a in ANSWERS)) for p in PROMPTS]
    batch = assemble([Example(tokens=Numbers().tokenise(g)) for g in groups])
    heads = frozenset({Head.LOGP} | ({Head.VALUE} if method.network == "value" else set()))
    out = model(batch, heads)
    shape = (len(PROMPTS), len(ANSWERS), -1)
    with torch.no_grad():
        ref = frozen(batch, frozenset({Head.LOGP})).logp
    rewards = [[reward_of(g.prompt, c) for c in g.completions] for g in groups]
    return World(
        model=model,
        frozen=frozen,
        logp=out.logp.reshape(shape),
        ref=ref.reshape(shape),
        mask=batch.completion_mask.reshape(shape),
        value=None if out.value is None else out.value.reshape(shape).double(),
        reward=torch.tensor(rewards, dtype=torch.float64),
    )


def sampled_gradients(method: Method, w: World) -> Tensor:
    """[STEPS, parameters]: one gradient per independent rollout, at weights that never move."""

    def own(heads: frozenset[Head], items: list[Example]) -> dict:
        return read(w.model, items, heads, tokens_per_microbatch=2000, temperature=1.0, device="cpu")

    source = RolloutSource(
        method=method, prompts=PROMPTS, reward=pointwise(reward_of),
        sampler=Sampler(engine=LocalEngine(w.model, Numbers()), sampling=Sampling(max_tokens=2)),
        reader=Reader(
            tokenise=Numbers().tokenise, read=own, reference=partial(logps_of, w.frozen) if method.reference == "start" else None
        ),
        prompts_per_step=PROMPTS_PER_STEP, tokens_per_microbatch=2000, seed=5, ledger=Ledger(),
    )  # fmt: skip
    rows = []
    for index in range(STEPS):
        loop.accumulate(w.model, method.objective, source.step(index).batches)
        grads = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in w.model.parameters()]
        rows.append(torch.cat(grads).double())
        w.model.zero_grad()
    return torch.stack(rows)


def shaped_return(w: World, kl: float = KL) -> Tensor:
    """-(E[r] - kl KL(pi, ref)), mean over prompts; differentiated through the probabilities themselves."""
    chance = w.logp.sum(-1).exp()
    return -(chance * (w.reward - kl * (w.logp - w.ref).sum(-1))).sum() / len(PROMPTS)


def group_relative(w: World, *, kl: float, size: int = 3) -> Tensor:
    """GRPO: expectation over every group of `size` answers of the z-scored surrogate, plus kl times the mean k3."""
    picks = np.array(list(itertools.product(range(len(ANSWERS)), repeat=size)))
    mean_credit = []
    for chance, reward in zip(w.chance.numpy(), w.reward.numpy(), strict=True):
        rewards, weight = reward[picks], chance[picks].prod(1)
        deviation = rewards.std(1, ddof=1)
        advantage = (rewards[:, 0] - rewards.mean(1)) / (deviation + 1e-4) * (np.ptp(rewards, axis=1) > 1e-6)
        total = np.bincount(picks[:, 0], weights=weight * advantage, minlength=len(ANSWERS))
        mean_credit.append(total)  # P(y) E[A | y]
    tokens = w.mask.sum(-1)
    surrogate = -(torch.tensor(np.array(mean_credit)) * w.logp.sum(-1) / tokens).sum()
    difference = w.ref - w.logp
    penalty = (torch.where(w.mask, difference.exp() - difference - 1, 0.0).sum(-1) / tokens * w.chance).sum()
    return (surrogate + kl * penalty) / len(PROMPTS)


def exact_divergence(w: World) -> Tensor:
    """GRPO's reduction of the KL of every token's distribution, by listing the tokens after every prefix; prefixes held fixed."""
    at = {answer: n for n, answer in enumerate(ANSWERS)}

    def of(answers: list[tuple[int, ...]], place: int) -> Tensor:
        own, ref = (x[:, [at[a] for a in answers], place] for x in (w.logp, w.ref))
        return (own.exp() * (own - ref)).sum(-1)

    first = of([(0,), (1, 0), (2, 0), (3, 0)], 0)
    second = {a: of([(a, b) for b in range(4)], 1) for a in (1, 2, 3)}
    means = [first if a == (0,) else (first + second[a[0]]) / 2 for a in ANSWERS]
    return (torch.stack(means, -1) * w.chance).sum() / len(PROMPTS)


def first_value_update(w: World) -> Tensor:
    """REINFORCE less a learned value: the baseline leaves no trace in the mean, and the value is pulled to the reward-to-go."""
    rewards = -KL * (w.logp.detach() - w.ref) * w.mask
    rewards.scatter_add_(-1, w.mask.sum(-1)[..., None] - 1, w.reward[..., None])
    togo = torch.stack([rewards.sum(-1), rewards[..., 1]], -1)
    weight = w.chance[..., None] * w.mask
    return shaped_return(w) + VALUE * (weight * 0.5 * (w.value - togo).square()).sum() / weight.sum()


def first_ppo_update(w: World, *, lam: float = 0.5) -> Tensor:
    """PPO at ratio 1: GAE by its definition (a sum of discounted differences), whitened over all tokens, and the value loss."""
    value, old = w.value.detach(), w.logp.detach()
    rewards = -KL * (old - w.ref) * w.mask
    last = w.mask.sum(-1) - 1
    rewards.scatter_add_(-1, last[..., None], w.reward[..., None])
    following = torch.cat([value[..., 1:], torch.zeros_like(value[..., :1])], -1)
    following = torch.where(torch.arange(2) == last[..., None], 0.0, following)
    delta = (rewards + following - value) * w.mask
    advantage = torch.stack([delta[..., 0] + lam * delta[..., 1], delta[..., 1]], -1)
    weight = w.chance[..., None] * w.mask
    count = weight.sum()
    mean = (weight * advantage).sum() / count
    deviation = ((weight * (advantage - mean).square()).sum() / count).sqrt()
    policy = -(weight * (advantage - mean) / deviation * w.logp).sum() / count
    error = 0.5 * (w.value - (advantage + value)).square()
    return policy + VALUE * (weight * error).sum() / count


def value_head(w: World) -> Tensor:
    """Which parameters are the value head's, as one flat mask."""
    return torch.cat([torch.full((p.numel(),), name.startswith("value_head")) for name, p in w.model.named_parameters()])


def off_by(samples: Tensor, exact: Tensor, head: Tensor) -> tuple[float, float]:
    """Largest distance of the mean from the exact gradient, and the gradient's own length, in standard errors.

    Along the gradient itself and six fixed random directions: among hundreds of single parameters some would be far by chance.
    """
    draw = generator("directions")
    alone = torch.where(head, exact, 0.0) if head.any() else exact  # the value head learns from the value loss alone
    directions = torch.cat([exact[None], alone[None], torch.randn(6, len(exact), generator=draw, dtype=torch.float64)])
    seen, known = samples @ directions.T, directions @ exact
    error = seen.std(0) / len(seen) ** 0.5
    return float(((seen.mean(0) - known).abs() / error).max()), float(known[0] / error[0])


CASES: dict[str, tuple[str, dict, Callable[[World], Tensor]]] = {
    "reinforce": ("reinforce", {"baseline": "none", "kl": KL}, shaped_return),
    "reinforce, batch baseline": ("reinforce", {"kl": KL}, shaped_return),
    "rloo": ("rloo", {"completions_per_prompt": 4, "kl": KL}, shaped_return),
    "grpo, no kl": ("grpo", {"completions_per_prompt": 3, "kl": 0.0}, partial(group_relative, kl=0.0)),
    "grpo, k3": ("grpo", {"completions_per_prompt": 3, "kl": KL}, partial(group_relative, kl=KL)),
    "grpo, exact kl": (
        "grpo",
        {"completions_per_prompt": 3, "kl": KL, "kl_estimator": "exact"},
        lambda w: group_relative(w, kl=0.0) + KL * exact_divergence(w),
    ),
    "reinforce, value": ("reinforce", {"baseline": "value", "kl": KL, "value": VALUE}, first_value_update),
    "ppo": ("ppo", {"updates": 1, "epochs": 1, "kl": KL, "lam": 0.5, "value": VALUE}, first_ppo_update),
}


@pytest.mark.parametrize("case", CASES)
def test_sampled_gradient_is_the_exact_one(case):
    name, parameters, loss = CASES[case]
    method = methods.build(name, parameters, steps=STEPS, max_tokens=2)
    w = world(method)
    assert w.chance.sum(-1).tolist() == pytest.approx([1.0, 1.0])
    exact = w.gradient(loss(w))
    distance, length = off_by(sampled_gradients(method, w), exact, value_head(w))
    assert distance < 4
    assert length > 6, "the samples could not tell this gradient from none"


def test_a_wrong_coefficient_is_seen():
    """The test above can fail: it tells kl 0.3 from 0.5 in RLOO, and GRPO's k3 from the reverse KL."""
    rloo = methods.build("rloo", {"completions_per_prompt": 4, "kl": KL}, steps=STEPS, max_tokens=2)
    w = world(rloo)
    assert off_by(sampled_gradients(rloo, w), w.gradient(shaped_return(w, kl=0.5)), value_head(w))[0] > 6
    grpo = methods.build("grpo", {"completions_per_prompt": 3, "kl": KL}, steps=STEPS, max_tokens=2)
    w = world(grpo)
    chance = w.logp.sum(-1).exp()
    reverse = KL * (chance * (w.logp - w.ref).sum(-1)).sum() / len(PROMPTS)
    assert off_by(sampled_gradients(grpo, w), w.gradient(group_relative(w, kl=0.0) + reverse), value_head(w))[0] > 6
