"""An online method's KL to its start is recorded: in training where the start is at hand, and of its held-out answers always."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch

from evenhand.methods import METHODS
from evenhand.plan.plan import build
from evenhand.spec.read import read_experiment
from evenhand.train import optim
from evenhand.train.examples import Example
from evenhand.train.policies import INITIAL_POLICY
from evenhand.types import TokenGroup
from tests.battery import variants
from tests.battery.world import logps_of, network
from tests.experiment.test_effects import PLAIN, method_of, signals
from tests.golden import runs

PENALTIES = (0.0, 0.05)
ONLINE = [name for name in sorted(METHODS) if method_of(name).online]


def with_penalty(name: str, penalty: float) -> dict[str, Any]:
    """The method's weight of a KL, where it has one; a method without is the same for any."""
    method = variants.VARIANTS.get(name, (name, {}))[0]
    return {"kl": penalty} if "kl" in inspect.signature(METHODS[method]).parameters else {}


CASES = [
    (name, penalty)
    for name in sorted({*ONLINE, *(v for v, (name, _) in variants.VARIANTS.items() if name in ONLINE)})
    for penalty in PENALTIES
    if (penalty or not with_penalty(name, penalty))
    and variants.build(name, with_penalty(name, penalty), steps=4, max_tokens=6).reference == INITIAL_POLICY
]
"""Methods that hold on to the start, as they are or by a penalty."""


def test_most_online_methods_are_among_the_cases() -> None:
    assert {"online_dpo", "rloo", "grpo", "dr_grpo", "ppo", "nash_md"} <= {name for name, _ in CASES}
    assert len(CASES) >= 47


@pytest.mark.parametrize(("name", "penalty"), CASES)
def test_the_kl_of_a_rollout_is_that_of_its_samples_to_the_start(name: str, penalty: float) -> None:
    """By the two networks' own log-probs, which nothing else of the source has seen: the start is another network here."""
    method = variants.build(name, with_penalty(name, penalty) | runs.SMALLER.get(name, {}), steps=4, max_tokens=6)
    policy, start = network(method, config=runs.CONFIG), network(method, 7, runs.CONFIG)
    optimizer = optim.AdamW(policy, learning_rate=0.0, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0)
    if method.compares_exactly:
        policy.compared_to(start, method.measure)
    source = runs.rollouts(method, policy, start, optimizer)
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    seen: list[TokenGroup] = []

    def tokenise(group: Any) -> TokenGroup:
        seen.append(source.reader.tokenise(group))
        return seen[-1]

    watched = runs.rollouts(method, policy, start, optimizer)
    watched.reader = replace(source.reader, tokenise=tokenise)
    recorded = watched.step(0).metrics["kl"]
    policy.load_state_dict(before)  # some begin a round from the start again
    items = [Example(tokens=g) for g in seen]
    rows = zip(items, logps_of(policy, items), logps_of(start, items), strict=True)
    found = [
        float((own - ref)[torch.tensor(t.mask)].sum())
        for item, own_rows, ref_rows in rows
        for t, own, ref in zip(item.tokens.completions, own_rows, ref_rows, strict=True)
    ]
    assert recorded == pytest.approx(sum(found) / len(found), rel=1e-5, abs=1e-5)
    assert abs(recorded) > 0.01


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_answers_of_every_online_arm_are_measured_against_the_start(penalty: float) -> None:
    """In the plan: what answers the held-out prompts has the shared start beside the arm, and records the KL between them."""
    arms = {name: {**signals(name), **with_penalty(name, penalty)} for name in ONLINE}
    plan = build(read_experiment({**PLAIN, "arms": {"plain": {"method": "start"}, **arms}}).value)
    nodes = {node.name: node for node in plan.nodes}
    for name in ONLINE:
        (answers,) = plan.generations[name].values()
        assert nodes[answers].inputs["start"] == "sft", name
        assert nodes[answers].inputs["policy"].startswith(f"arms/{name}/"), name
