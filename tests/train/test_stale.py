"""Rollouts of older weights: whose they are, by schedule; what is said of their distance; what corrects for it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from evenhand import methods
from evenhand.core.corrections import effective_share
from evenhand.methods import Method
from evenhand.objectives import Combined, Likelihood, Pairwise, PolicyGradient
from evenhand.train import optim
from evenhand.train.config import Staleness
from evenhand.train.examples import Example
from evenhand.train.loop import Loop, accumulate
from evenhand.train.rollouts import CREDITS, KlPenalty, Rollouts, Schedule
from evenhand.train.rollouts.source import RolloutSource
from evenhand.train.rollouts.stale import age, by_sampler, stale_metrics
from evenhand.types import Completion, Group, Need, Prompt, Scores, TokenGroup, Tokens
from tests.battery.world import logps_of, network
from tests.golden import runs
from tests.train.test_rollouts import rows, source

STEPS = 7


@pytest.mark.parametrize("updates", [1, 2, 3])
@pytest.mark.parametrize("staleness", [0, 1, 4, 16])
def test_every_rollout_is_sampled_once_and_when_it_is_due(updates, staleness):
    """First trained on in step r * updates, it is sampled `staleness` steps before, or at the very start."""
    found = {r: step for step in range(STEPS) for r in Schedule(updates, staleness=staleness).due(step, STEPS)}
    assert found == {r: max(0, r * updates - staleness) for r in range(STEPS) if r * updates < STEPS}
    asked = [r for step in range(STEPS) for r in Schedule(updates, staleness=staleness).due(step, STEPS)]
    assert len(asked) == len(found)


def stale(name: str, staleness: Staleness | None = None, **parameters) -> Method:
    return methods.build(name, parameters, steps=STEPS, max_tokens=runs.MAX_TOKENS).stale(staleness)


def begun(method: Method) -> tuple[Loop, RolloutSource]:
    """The tiny network, its rollouts and its loop before the first step; a learning rate at which every step is seen."""
    model = network(method, config=runs.CONFIG)
    frozen = network(method, config=runs.CONFIG).requires_grad_(False)
    frozen.load_state_dict(model.state_dict())
    optimizer = optim.AdamW(model, learning_rate=2e-2, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0)
    source = runs.rollouts(method, model, frozen, optimizer)
    source.steps = STEPS
    return Loop(
        model=model, objective=method.objective, source=source, optimizer=optimizer, factor=lambda step: 1.0,
        temperature=method.logit_temperature(1.0),
    ), source  # fmt: skip


def apart(model: torch.nn.Module, items: list[Example]) -> float:
    """The largest difference of the sampler's log-probs from those of a network."""
    rows = zip(items, logps_of(model, items), strict=True)
    return max(
        float((torch.tensor(c.behaviour_logp) - row).abs().max())
        for e, found in rows for c, row in zip(e.tokens.completions, found, strict=True)
    )  # fmt: skip


@pytest.mark.parametrize(("updates", "steps"), [(1, 0), (1, 2), (2, 3)])
def test_the_log_probs_of_every_group_are_those_of_the_weights_it_names(updates, steps):
    method = stale("grpo", Staleness(steps=steps), completions_per_prompt=4, kl=0.0, updates=updates)
    loop, source = begun(method)
    weights: list[dict[str, torch.Tensor]] = []
    other = network(method, config=runs.CONFIG)
    for step in range(STEPS):
        weights.append({n: p.detach().clone() for n, p in loop.model.state_dict().items()})
        loop.one_step(step)
        version = max(0, updates * (step // updates) - steps)
        assert {e.tokens.group.policy_version for e in source.buffer.examples} == {version}
        other.load_state_dict(weights[version])
        assert apart(other, source.buffer.examples) < 1e-5
        if version < step:
            other.load_state_dict(weights[step])
            assert apart(other, source.buffer.examples) > 1e-3, "weights that did not move tell nothing"
    assert source.in_flight == {}, "nothing is sampled for a step that never comes"


def test_the_age_of_a_step_is_recorded():
    loop, _ = begun(stale("grpo", Staleness(steps=2), completions_per_prompt=4, kl=0.0, updates=2))
    ages = [loop.one_step(step)["staleness"] for step in range(6)]
    assert ages == [0, 1, 2, 3, 2, 3]


def test_on_policy_rollouts_say_nothing_of_their_age():
    loop, _ = begun(stale("grpo", completions_per_prompt=4, kl=0.0))
    assert not [name for name in loop.one_step(0) if name.startswith("staleness")]


def test_a_resumed_source_goes_on_with_what_was_in_flight():
    method = stale("grpo", Staleness(steps=3), completions_per_prompt=4)
    loop, source = begun(method)
    for step in range(3):
        loop.one_step(step)
    assert sorted(source.in_flight) == [3, 4, 5]
    kept = json.loads(json.dumps(source.state_dict()))
    again, other = begun(method)
    again.model.load_state_dict(loop.model.state_dict())
    other.load_state_dict(kept)
    assert {e.tokens.group.policy_version for e in other.in_flight[5]} == {2}
    one, two = source.step(3), other.step(3)
    assert one.metrics == two.metrics
    assert all(
        torch.equal(a.ids, b.ids) and torch.equal(a.advantage, b.advantage) for a, b in zip(one.batches, two.batches, strict=True)
    )


def gradient(method: Method) -> tuple[list[torch.Tensor], dict[str, float]]:
    """Of a step whose rollout is two steps old, with the metrics of that step."""
    loop, source = begun(stale("grpo", Staleness(steps=2), completions_per_prompt=4, kl=0.0))
    for step in range(2):
        loop.one_step(step)
    loop.model.zero_grad()
    source.method = method
    step = source.step(2)
    accumulate(loop.model, method.objective, step.batches)
    return [p.grad.clone() for p in loop.model.parameters() if p.grad is not None], dict(step.metrics)


def test_exact_importance_is_the_gradient_of_an_unclipped_ratio_to_the_sampler():
    """At ratio pi / mu the gradient of A pi/mu is A pi/mu grad log pi: the last policy, weighed by pi / mu."""
    weighed, told = gradient(stale("grpo", Staleness(steps=2), completions_per_prompt=4, kl=0.0, importance=1e9))
    free = stale("grpo", Staleness(steps=2, proximal="generator"), completions_per_prompt=4, kl=0.0, low=1.0, high=1e9)
    around, _ = gradient(free)
    bare, _ = gradient(stale("grpo", Staleness(steps=2), completions_per_prompt=4, kl=0.0))
    assert max(float((a - b).abs().max()) for a, b in zip(weighed, around, strict=True)) < 1e-6
    assert max(float((a - b).abs().max()) for a, b in zip(weighed, bare, strict=True)) > 1e-4, "no correction, no difference"
    assert told["staleness/kl"] > 1e-3
    assert 0 < told["staleness/effective"] < 1
    assert told["staleness/clipped"] == 0.0


def example(old: list[list[float]], behaviour: list[list[float] | None], mask: list[list[bool]] | None = None) -> Example:
    marks = mask or [[True] * len(row) for row in old]
    tokens = tuple(
        Tokens(ids=(1,) * len(m), mask=tuple(m), behaviour_logp=None if b is None else tuple(b))
        for m, b in zip(marks, behaviour, strict=True)
    )
    group = Group(prompt=Prompt(content="p"), completions=tuple(Completion(content="a") for _ in old), policy_version=3)
    return Example(
        tokens=TokenGroup(prompt=(1,), completions=tokens, group=group), per_token={"old_logp": tuple(map(torch.tensor, old))}
    )


LN2 = math.log(2)
CORRECTED = PolicyGradient(parameters={"low": 0.2, "high": 0.2}, importance=1.5)


def test_the_distance_by_hand():
    """Weights 2, 1/2, 1; the answer of the data and the masked token count nowhere."""
    item = example(
        [[LN2 - 1, -1 - LN2], [-1.0, 9.0], [5.0]], [[-1.0, -1.0], [-1.0, -1.0], None], [[True, True], [True, False], [True]]
    )
    found = stale_metrics([item], CORRECTED, "last")
    assert found["staleness/importance"] == pytest.approx(3.5 / 3)
    assert found["staleness/effective"] == pytest.approx(3.5**2 / (3 * 5.25))
    assert found["staleness/kl"] == pytest.approx((2 - 1 - LN2 + 0.5 - 1 + LN2) / 3)
    assert found["staleness/clipped"] == pytest.approx(1 / 3), "2 is above the cap of 1.5"


@pytest.mark.parametrize(
    ("objective", "proximal", "cut"),
    [
        (replace(CORRECTED, correction="mask_tokens", importance_low=0.7), "last", 2 / 3),
        (replace(CORRECTED, correction="mask_sequences", importance_low=0.5, importance=3.0), "last", 0.0),
        (replace(CORRECTED, importance=0.0), "generator", 2 / 3),
        (replace(CORRECTED, importance=0.0), "last", None),
        (Combined(objectives=(CORRECTED, Likelihood()), coefficients=(1.0, 0.1)), "last", 1 / 3),
        (Pairwise(loss="dpo", parameters={"beta": 0.1}), "last", None),
    ],
)
def test_the_share_that_is_cut(objective, proximal, cut):
    """Weights 2 and 1/2 of one answer, whose product is 1, and 1 of another."""
    item = example([[LN2 - 1, -1 - LN2], [-1.0]], [[-1.0, -1.0], [-1.0]])
    assert stale_metrics([item], objective, proximal).get("staleness/clipped") == (cut if cut is None else pytest.approx(cut))


def test_nothing_is_said_where_nothing_was_sampled():
    assert stale_metrics([example([[1.0]], [None])], CORRECTED, "last") == {}
    assert age([replace(e, tokens=replace(e.tokens, group=replace(e.tokens.group, policy_version=None)))
                for e in [example([[1.0]], [[1.0]])]], 4) == {}  # fmt: skip


@pytest.mark.parametrize("field", ["old_logp", "ref_logp"])
def test_who_sampled_stands_where_the_method_means_it(field):
    item = example([[-2.0]], [[-1.0]])
    item = replace(item, per_token={**item.per_token, "ref_logp": (torch.tensor([-3.0]),)})
    found = by_sampler(item, field).per_token
    assert {name for name, rows in found.items() if rows[0].tolist() == [-1.0]} == {field}


@pytest.mark.parametrize(("proximal", "kept"), [("last", {}), ("generator", {"old_logp": -0.5})])
def test_a_clip_around_the_generator_leaves_the_kl_to_the_policy_of_now(proximal, kept):
    """Log-probs of now 0.25, of the reference -1, as sampled -0.5; answers of 1 and 2 tokens whose rewards are their lengths."""
    plan = Rollouts(
        completions_per_prompt=2, credit=CREDITS["none"], kl=KlPenalty(coefficient=0.2),
        schedule=Schedule(staleness=1, proximal=proximal),
    )  # fmt: skip
    made, _ = source(plan, reference=lambda items: rows(items, -1.0))
    advantage = made.step(0).batches[0].advantage.flatten()[:2]
    assert advantage.tolist() == pytest.approx([1 - 0.2 * 1.25, 2 - 0.4 * 1.25])
    fields = made.buffer.examples[0].per_token
    assert {name: row[0].item() for name, (row, _) in fields.items()} == kept


def test_what_was_earned_on_the_way_outlives_a_kill_in_flight():
    """A reward that says where it was earned, credited token by token two steps after it was sampled."""

    def in_halves(groups):
        return [
            Scores(tuple(float(len(c.tokens)) for c in g.completions), {}, tuple((0.5,) * len(c.tokens) for c in g.completions))
            for g in groups
        ]

    plan = Rollouts(completions_per_prompt=2, credit=CREDITS["gae"], schedule=Schedule(staleness=2))
    needs = frozenset({Need.ADVANTAGE, Need.VALUE})
    whole, _ = source(plan, reward=in_halves, needs=needs)
    killed, _ = source(plan, reward=in_halves, needs=needs)
    again, _ = source(plan, reward=in_halves, needs=needs)
    killed.step(0)
    again.load_state_dict(json.loads(json.dumps(killed.state_dict())))
    whole.step(0)
    for a, b in zip(whole.step(1).batches, again.step(1).batches, strict=True):
        assert torch.equal(a.returns, b.returns)
        assert torch.equal(a.advantage, b.advantage)


def test_the_effective_share_of_one_among_many():
    assert float(effective_share(torch.tensor([3.0, 0.0, 0.0]))) == pytest.approx(1 / 3)
