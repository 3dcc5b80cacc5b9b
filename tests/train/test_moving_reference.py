"""A reference that follows the policy: when it moves and how far, what the loss is right after, and what it reduces to."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from evenhand import methods
from evenhand.protocols import Step
from evenhand.train.config import ReferenceUpdate
from evenhand.train.moving_reference import FollowingReference
from evenhand.train.rollouts import CREDITS, Rollouts, Schedule
from evenhand.train.rollouts.given import GivenAnswers, by_prompt
from evenhand.types import Completion, Group, Need, Prompt, Sampling
from tests.golden import runs
from tests.train.test_rollouts import rows, source


class Nothing:
    """A source that has nothing but a network of its own."""

    groups, carried = (), {"previous": torch.nn.Linear(1, 1)}

    def step(self, index: int) -> Step:
        return Step(())

    def state_dict(self):
        return {"at": 3}

    def load_state_dict(self, state):
        self.loaded = state


def weight(value: float) -> torch.nn.Linear:
    made = torch.nn.Linear(1, 1, bias=False)
    made.weight.data.fill_(value)
    return made


@pytest.mark.parametrize(
    ("mix", "known"),
    # the policy stands at 8 throughout: after k updates the reference is 8 (1 - (1 - mix)^k)
    [(1.0, [0, 0, 0, 8, 8, 8, 8]), (0.5, [0, 0, 0, 4, 4, 4, 6]), (0.25, [0, 0, 0, 2, 2, 2, 3.5])],
)
def test_the_reference_moves_after_every_third_step(mix, known):
    reference = weight(0.0)
    source = FollowingReference(
        source=Nothing(), policy=weight(8.0), reference=reference, update=ReferenceUpdate(every=3, mix=mix)
    )
    found = []
    for index in range(7):
        source.step(index)
        found.append(reference.weight.item())
    assert found == known


def test_what_is_saved_is_the_source_s_and_the_reference():
    reference, inner = weight(0.0), Nothing()
    source = FollowingReference(source=inner, policy=weight(8.0), reference=reference, update=ReferenceUpdate(every=1))
    assert source.carried == {"previous": inner.carried["previous"], "reference": reference}
    source.load_state_dict(source.state_dict())
    assert inner.loaded == {"at": 3}


def curve(monkeypatch, name: str, **parameters) -> list[dict[str, float]]:
    monkeypatch.setitem(runs.SMALLER, name, parameters)
    return list(runs.run(name))


def test_it_is_dpo_while_nothing_moves_and_not_after(monkeypatch):
    known = curve(monkeypatch, "dpo", beta=0.05)
    late, soft = curve(monkeypatch, "tr_dpo", every=20), curve(monkeypatch, "tr_dpo", every=8)
    columns = ("loss", "grad_norm", "margin")
    assert [[row[c] for c in columns] for row in late] == [[row[c] for c in columns] for row in known]
    assert [row["loss"] for row in soft[:8]] == [row["loss"] for row in known[:8]]
    assert abs(soft[8]["loss"] - known[8]["loss"]) > 1e-3


def test_right_after_a_copy_every_pair_is_even(monkeypatch):
    """Policy and reference are one again: log 2, and no margin."""
    hard = curve(monkeypatch, "stepwise_dpo", parts=4)
    for index, row in enumerate(hard):
        assert (row["loss"] == pytest.approx(math.log(2), abs=1e-6)) == (index % 5 == 0)
        assert (abs(row["margin"]) < 1e-6) == (index % 5 == 0)


def test_one_part_is_dpo(monkeypatch):
    one, known = curve(monkeypatch, "stepwise_dpo", parts=1), curve(monkeypatch, "dpo")
    assert [row["loss"] for row in one] == [row["loss"] for row in known]


@pytest.mark.parametrize("name", ["ipo", "kto", "apo_zero", "online_dpo"])
def test_any_method_that_is_held_to_the_start_takes_it(name):
    """`following` changes the reference's update and nothing else."""
    made = methods.build(name, {}, steps=6, max_tokens=8)
    moved = made.following(ReferenceUpdate(every=2, mix=0.5))
    assert moved.reference_update == ReferenceUpdate(every=2, mix=0.5)
    assert replace(moved, reference_update=None) == made
    assert made.following(None) is made


@pytest.mark.parametrize(
    ("schedule", "read"),
    [(Schedule(3), [0, 0, 1, 1, 2, 2]), (Schedule(2, accumulate=True), [{0}, {0}, {1}, {1}, {2}, {2}])],
)
def test_what_is_trained_on_for_several_steps_is_compared_with_the_reference_of_now(schedule, read):
    """The reference moves before steps 2 and 4, and says 0, 1 and 2 of every token."""
    plan = Rollouts(completions_per_prompt=2, credit=CREDITS["centre"], schedule=schedule)
    at, needs = [0.0], frozenset({Need.ADVANTAGE, Need.REF_LOGP})
    made, _ = source(plan, needs=needs, reference=lambda items: rows(items, at[0]))
    made.method = made.method.following(ReferenceUpdate(every=2))
    for index, known in enumerate(read):
        at[0] = float(index // 2)
        (batch,) = made.step(index).batches
        assert set(batch.ref_logp[batch.completion_mask].tolist()) == (known if isinstance(known, set) else {known})


# ---- the data's answers as the better ones ----------------------------------------------------------------------------------


def test_spin_begins_every_round_even_and_learns_the_data(monkeypatch):
    """Twenty steps in four rounds: each is held to the policy that sampled for it."""
    rows = curve(monkeypatch, "spin", rounds=4)
    for index in (0, 5, 10, 15):
        assert rows[index]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[4]["loss"] < math.log(2) - 0.01
    assert all("reward" not in row for row in rows)
    assert rows[-1]["chosen_logp"] > rows[0]["chosen_logp"] + 1


def test_one_of_several_answers_is_drawn_by_seed():
    prompt = Prompt(content="?")
    rows = [Group(prompt=prompt, completions=(Completion(content=text),)) for text in "abc"]
    engine = GivenAnswers(by_prompt(rows))
    drawn = {engine.generate([prompt], 1, Sampling(seed=seed))[0].completions[0].text for seed in range(40)}
    assert drawn == {"a", "b", "c"}
    assert len({engine.generate([prompt], 1, Sampling(seed=1))[0].completions[0].text for _ in range(5)}) == 1
