"""What iterative DPO may learn from besides its own samples: the start's answers, and the data's pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evenhand import methods
from evenhand.errors import UserError
from evenhand.train.cost_accounting import Ledger
from evenhand.train.examples import Example, with_pairs
from evenhand.train.rollouts.reader import Reader
from evenhand.train.rollouts.sampler import Sampler
from evenhand.train.rollouts.shaping import spread
from evenhand.train.rollouts.source import RolloutSource
from evenhand.types import Prompt, Sampling, Scores
from tests.battery.test_bandit import ANSWERS, REWARD, start
from tests.battery.tree import Table, TableEngine, group_of, logps, tokenise


def sharp(answer: int) -> Table:
    """A policy that gives one answer alone."""
    table = Table(ANSWERS)
    with torch.no_grad():
        for branch, n in table.branches.items():
            table.logits[n] = 50.0 if ANSWERS[answer][: len(branch)] == branch else 0.0
    return table


def source(policy: Table, other: Table | None = None, offline=(), **parameters) -> RolloutSource:
    method = methods.build("iterative_dpo", {"completions_per_prompt": 4, **parameters}, steps=6, max_tokens=8)
    score = lambda groups: [Scores(tuple(REWARD[c.tokens] for c in g.completions)) for g in groups]  # noqa: E731
    return RolloutSource(
        method=method, prompts=[Prompt(content=str(n)) for n in range(4)], reward=score,
        sampler=Sampler(
            engine=TableEngine(policy), sampling=Sampling(), partner=None if other is None else TableEngine(other)
        ),
        reader=Reader(
            tokenise=tokenise, read=lambda heads, items: {h: logps(policy, items) for h in heads},
            reference=lambda items: logps(start(), items),
        ),
        prompts_per_step=2, tokens_per_microbatch=1000, seed=0, ledger=Ledger(), fixed=offline,
    )  # fmt: skip


def test_the_partner_writes_half_of_every_group():
    """Policy and start each know one answer: every group has both, and so every pair sets one against the other."""
    found = source(sharp(0), sharp(1), partner="start")
    groups = found.scored([Prompt(content="x")], 0)
    assert [c.tokens for c in groups[0].completions] == [ANSWERS[0]] * 2 + [ANSWERS[1]] * 2
    step = found.step(0)
    assert sum(len(b.pairs) for b in step.batches) > 0


def test_without_a_partner_there_is_nothing_to_compare():
    assert list(source(sharp(0)).step(0).batches) == []


def test_partner_and_policy_draw_apart():
    """Equal weights do not say equal things: else the first round would have no pairs."""
    groups = source(start(), start(), partner="start").scored([Prompt(content=str(n)) for n in range(8)], 0)
    assert any(g.completions[:2] != g.completions[2:] for g in groups)


def test_partner_and_policy_share_the_temperatures():
    """Else an author would be known by its temperature."""
    found = source(start(), start(), partner="start")
    asked = []
    for engine in (found.sampler.engine, found.sampler.partner):
        engine.generate = lambda prompts, n, each, max_prompt=None, real=engine.generate: (
            asked.append([s.temperature for s in each]) or real(prompts, n, each, max_prompt=max_prompt)
        )
    found.step(0)
    assert asked == [[1.0, 0.7], [1.0, 0.7]]


def test_hybrid_rounds_hold_the_data_s_pairs_once_an_epoch():
    rows = [group_of((ANSWERS[3], ANSWERS[2]), (1.0, 0.0), f"offline {n}") for n in range(5)]
    items = [with_pairs(Example(tokens=tokenise(g))) for g in rows]
    items = [replace(i, per_token={"ref_logp": r}) for i, r in zip(items, logps(start(), items), strict=True)]
    alone, mixed = source(start(), epochs=1), source(start(), offline=items, epochs=1, hybrid=True)
    count = lambda s: sum(len(b.pairs) for index in (0, 1) for b in s.step(index).batches)  # noqa: E731 - one round of two updates
    assert count(mixed) == count(alone) + 5
    assert len(mixed.state_dict()["examples"]) == len(alone.state_dict()["examples"]), "a checkpoint need not repeat the data"


def test_misspelt_coordinates_are_faults():
    with pytest.raises(UserError, match="did you mean 'start'"):
        methods.build("iterative_dpo", {"partner": "strat"}, steps=6, max_tokens=8)
    with pytest.raises(UserError, match="did you mean 'batch_baseline'"):
        methods.build("reinforce", {"baseline": "batch_baselin"}, steps=6, max_tokens=8)
    with pytest.raises(UserError, match="fixed reference"):
        methods.build("iterative_dpo", {"hybrid": True, "reference": "generator"}, steps=6, max_tokens=8)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("iterative_dpo", {"partner": "previus"}, "did you mean 'previous'"),
        ("iterative_dpo", {"pairs": "rejections"}, "did you mean 'rejection'"),
        ("iterative_dpo", {"pairs": "best"}, "unknown pairs 'best'"),
        ("iterative_dpo", {"initialise": "strat"}, "did you mean 'start'"),
        ("iterative_dpo", {"reference": "generatr"}, "did you mean 'generator'"),
        ("iterative_dpo", {"rejection_temperature": 0.0}, "rejection_temperature is 0.0"),
        ("ppo", {"critic": "seperate"}, "did you mean 'separate'"),
        ("ppo", {"value": 0.0}, "never learn"),
        ("reinforce", {"baseline": "value", "value": 0.0}, "never learn"),
        ("rloo", {"kl_estimator": "exakt"}, "did you mean 'exact'"),
        ("grpo", {"kl_estimator": "k4"}, "unknown estimator"),
        ("grpo", {"kl_in": "reward"}, "k3 belongs in the loss"),
        ("dapo", {"kl": 0.1, "kl_in": "rewards"}, "did you mean 'reward'"),
        ("rloo", {"kl_estimator": "k3_ratio"}, "unknown kl_estimator"),
        ("grpo", {"advantage": "ranks"}, "did you mean 'rank'"),
        ("grpo", {"updates": 3, "epochs": 2}, "3 updates are no whole number of 2 epochs"),
        ("ppo", {"updates": 1}, "1 updates are no whole number of 2 epochs"),
        ("ppo", {"kl": 0.0, "kl_target": 6.0}, "needs a coefficient to begin with"),
        ("topr", {"baseline": 1.0}, "pushed the same way"),
    ],
)
def test_what_cannot_be_is_said(name, parameters, message):
    with pytest.raises(UserError, match=message):
        methods.build(name, parameters, steps=6, max_tokens=8)


def test_refill_looks_at_the_reward_before_length_penalties():
    """DAPO draws again where all answers are equally good, even if their lengths are fined differently."""
    group = group_of(ANSWERS, (0.9, 1.0, 1.0, 0.8))
    fined = replace(group, parts={"unshaped": (1.0, 1.0, 1.0, 1.0)})
    assert spread(fined) == pytest.approx(0.2)
    assert spread(fined, unshaped=True) == 0.0
    assert spread(group, unshaped=True) == pytest.approx(0.2)
