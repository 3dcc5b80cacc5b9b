"""Answers that are not the policy's own: a demonstration in every group, an opponent's, and a proximal policy that is renewed."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

from evenhand import methods
from evenhand.core import surrogates
from evenhand.engines.mixture import MixtureEngine
from evenhand.errors import UserError
from evenhand.train.examples import Example
from evenhand.train.loop import Loop, accumulate
from evenhand.train.optim import AdamW
from evenhand.train.rollouts.experience import Experience
from evenhand.train.rollouts.optimistic import AgainstPartner, SoftValue
from evenhand.types import Prompt, Sampling
from tests.battery.test_bandit import ANSWERS
from tests.battery.test_reductions import built, step
from tests.battery.tree import group_of, tokenise
from tests.battery.world import items_for, logps_of, network, same
from tests.golden import runs

SMALL = {**runs.CONFIG, "vocab_size": 5, "initializer_range": 0.6}


# ---- LUFFY ----------------------------------------------------------------------------


def test_a_given_token_weighs_by_its_probability():
    """-A p / (p + 0.1), its slope in log p A 0.1 p / (p + 0.1)^2, whatever the old log-prob; finite at the ends."""
    p = torch.tensor([[0.9, 0.1, 0.01]], dtype=torch.float64)
    logp, old = p.log().requires_grad_(), torch.full((1, 3), -7.0, dtype=torch.float64)
    yes, no = torch.tensor([[True]]), torch.tensor([[False]])
    loss = surrogates.mixed_policy(logp, old, torch.tensor([[2.0]]), yes, low=0.2, high=0.2, gain=0.1)
    assert loss.tolist()[0] == pytest.approx([-2 * 0.9, -2 * 0.5, -2 / 11])
    (slope,) = torch.autograd.grad(loss.sum(), logp)
    assert slope.tolist()[0] == pytest.approx([-2 * 0.09, -2 * 0.25, -2 * 0.001 / 0.0121])
    own = surrogates.mixed_policy(logp, logp.detach(), torch.tensor([[2.0]]), no, low=0.2, high=0.2, gain=0.1)
    assert own.tolist()[0] == pytest.approx([-2.0] * 3)
    far = torch.tensor([[-1e4, 0.0]], requires_grad=True)
    for given in (yes, no):
        value = surrogates.mixed_policy(far, far.detach(), torch.ones(1, 1), given, low=0.2, high=0.2, gain=0.1)
        assert torch.isfinite(torch.autograd.grad(value.sum(), far)[0]).all()


def test_without_a_given_answer_luffy_is_dapo_at_its_low_clip():
    items = items_for(built("luffy"))
    own = [replace(i, per_completion={**i.per_completion, "given": (0.0,) * len(i.tokens.completions)}) for i in items]
    same(step(built("luffy"), own), step(built("dapo", high=0.2), items))
    assert (step(built("luffy"), items)[1] - step(built("dapo", high=0.2), items)[1]).abs().max() > 1e-6


# ---- Nash-MD ----------------------------------------------------------------------------


def test_the_mixture_is_the_normalised_product_token_by_token():
    """Empirical and stated log-probs of the engine's first two tokens against the plain networks, enumerated."""
    one, other = (network(methods.build("sft", {}, steps=6, max_tokens=8), seed, SMALL).float() for seed in (0, 4))
    engine = MixtureEngine(one, other, runs.Numbers(), share=0.3)
    prompts = [Prompt(content="1 2", id=str(n)) for n in range(400)]
    groups = engine.generate(prompts, 1, Sampling(max_tokens=2, temperature=1.0))
    known = {}

    def mixed(ids: list[int]) -> torch.Tensor:
        logits = [m.hf(input_ids=torch.tensor([ids])).logits[0, -1].double() for m in (one, other)]
        return (0.7 * logits[0].log_softmax(-1) + 0.3 * logits[1].log_softmax(-1)).log_softmax(-1)

    with torch.no_grad():
        for first in range(5):
            known[first,] = mixed([1, 2])[first].item()
            for second in range(5):
                known[first, second] = known[first,] + mixed([1, 2, first])[second].item()
    for group in groups:
        tokens, logp = group.completions[0].tokens, group.completions[0].behaviour_logp
        assert sum(logp) == pytest.approx(known[tokens], abs=1e-4)
    share = sum(g.completions[0].tokens[0] == 0 for g in groups) / 400
    assert abs(share - math.exp(known[0,])) < 4 * math.sqrt(0.25 / 400)


def test_the_credit_against_an_opponent_by_hand():
    """Two own answers against two of the mixture; one of the latter has no score, and no answer of the mixture is trained on."""
    rewards = torch.tensor([[1.0, -1.0, 0.5, math.nan], [0.0, math.nan, 2.0, 2.0]])
    examples = [Example(tokens=tokenise(group_of(ANSWERS, tuple(row), str(n)))) for n, row in enumerate(rewards.tolist())]
    made = AgainstPartner()(
        Experience(examples=examples, reward=rewards, kl_coefficient=0.0, kl_estimator="k1", memory={}, seed=0, rollout=0)
    )
    found = [e.per_completion["advantage"] for e in made]
    s = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    assert found[0] == pytest.approx((s(0.5) - 0.5, s(-1.5) - 0.5))
    assert found[1] == pytest.approx((s(-2.0) - 0.5, 0.0))
    assert [len(e.tokens.completions) for e in made] == [2, 2]


def test_nothing_is_learned_where_no_answer_tells_the_soft_value():
    """Rewards 1 and 0, the partner's 0 and 2 at temperature 1; of the second prompt the partner has no score."""
    rewards = torch.tensor([[1.0, math.nan, 0.0, 2.0], [1.0, 0.0, math.nan, math.nan]])
    examples = [Example(tokens=tokenise(group_of(ANSWERS, tuple(row), str(n)))) for n, row in enumerate(rewards.tolist())]
    made = SoftValue(temperature=1.0)(
        Experience(examples=examples, reward=rewards, kl_coefficient=0.0, kl_estimator="k1", memory={}, seed=0, rollout=0)
    )
    (kept,) = made
    assert kept.per_completion["advantage"] == pytest.approx((1 - math.log((1 + math.e**2) / 2), 0.0))
    assert len(kept.tokens.completions) == 2


def test_what_only_truncates_has_no_least_weight():
    plain, least = (methods.build("grpo", {"importance": 2.0, **m}, steps=6, max_tokens=8) for m in ({}, {"importance_low": 0.5}))
    assert plain == least, "so that an experiment which names it is told that it has no effect"


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("nash_md", {"mixture": 1.5}, "mixture is 1.5"),
        ("nash_md", {"completions_per_prompt": 1}, "1 completions per prompt"),
        ("a_star_po", {"completions_per_prompt": 1}, "1 completions per prompt"),
        (
            "grpo",
            {"advantage": "pass_at_k", "completions_per_prompt": 3},
            "3 completions per prompt under `advantage: pass_at_k`",
        ),
        ("ppo", {"renew": 2}, "`renew` without `importance`"),
        ("grpo", {"renew": 2, "updates": 4}, "`renew` without `importance`"),
        ("luffy", {"advantage": "gae"}, "unknown advantage 'gae'"),
    ],
)
def test_what_cannot_be_is_said(name, parameters, told):
    with pytest.raises(UserError, match=told):
        methods.build(name, parameters, steps=6, max_tokens=8)


# ---- a proximal policy that is renewed ----------------------------------------------------------------------------


def test_a_renewed_proximal_policy_is_the_current_one(monkeypatch):
    """Before update 2 of 4 the ratio of every token is 1 again, and the weight is the ratio to the policy that sampled.

    The step's gradient is then that of `-(pi / mu) A log pi`, written down from the plain network."""
    settings = {"updates": 4, "renew": 2, "importance": 1e9, "kl": 0.0}
    method = methods.build("grpo", settings, steps=20, max_tokens=6)
    model = network(method, config=runs.CONFIG)
    optimizer = AdamW(model, learning_rate=5e-2, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0)
    source = runs.rollouts(method, model, copy.deepcopy(model).requires_grad_(False), optimizer)
    loop = Loop(model=model, objective=method.objective, source=source, optimizer=optimizer, factor=lambda step: 1.0)
    rows = [metrics for _, metrics in loop.run(0, 2)]
    assert rows[0]["ratio"] == pytest.approx(1.0, abs=1e-6)
    assert abs(rows[1]["ratio"] - 1.0) > 1e-4
    taken = source.step(2)
    own = logps_of(model, source.buffer.examples)
    for example, row in zip(source.buffer.examples, own, strict=True):
        for old, now in zip(example.per_token["old_logp"], row, strict=True):
            torch.testing.assert_close(old, now)
        sampled = [torch.tensor(c.behaviour_logp) for c in example.tokens.completions]
        assert max(float((a - b).abs().max()) for a, b in zip(sampled, row, strict=True)) > 1e-3, "who sampled stays known"
    model.zero_grad()
    accumulate(model, method.objective, taken.batches)
    ours = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    by_hand(model, taken.batches).backward()
    torch.testing.assert_close(ours, torch.cat([p.grad.flatten() for p in model.parameters()]), rtol=1e-4, atol=1e-7)


def by_hand(model, batches) -> torch.Tensor:
    """Mean over answers of the mean over tokens of -(pi / mu) A log pi, the weight held constant."""
    values, answers = [], 0
    for batch in batches:
        answers += len(batch.layout.completions)
        for n, (span, owner) in enumerate(zip(batch.layout.completions, batch.layout.owner, strict=True)):
            prompt = batch.layout.prompts[owner]
            ids = torch.cat([batch.ids[prompt.start : prompt.stop], batch.ids[span.start : span.stop]])
            logits = model.hf(input_ids=ids[None]).logits[0].double().log_softmax(-1)
            logp = torch.stack([logits[prompt.length - 1 + t, ids[prompt.length + t]] for t in range(span.length)])
            weight = (logp.detach() - batch.behaviour_logp[n, : span.length].double()).exp()
            values.append(-(weight * batch.advantage[n, 0] * logp).mean())
    return torch.stack(values).sum() / answers


def test_the_share_of_the_partner():
    exploration = methods.build("nash_md", {}, steps=6, max_tokens=8).rollouts.exploration
    assert [exploration.of_partner(n) for n in (2, 3, 8)] == [1, 1, 4]
    given = methods.build("luffy", {}, steps=6, max_tokens=8).rollouts.exploration
    assert [given.of_partner(n) for n in (2, 3, 8)] == [1, 1, 1]
