"""Credit by turn: numbers by hand, reductions, and the way from an environment's rewards to tokens."""

from __future__ import annotations

import math

import pytest
import torch

from evenhand.core import credit, turn_credit
from evenhand.rewards.environment import EnvironmentReward
from evenhand.train.examples import Example
from evenhand.train.rollouts import CREDITS
from evenhand.train.rollouts.credits import token_advantages
from evenhand.train.rollouts.experience import Experience
from evenhand.train.rollouts.shaping import with_scores
from evenhand.types import Completion, Group, Message, Prompt, Scores, TokenGroup, Tokens, Turn

NAN = math.nan


def test_rewards_to_go_by_hand():
    reward = torch.tensor([[[1.0, 2.0, 4.0], [3.0, NAN, NAN]]])
    assert turn_credit.to_go(reward).tolist()[0][0] == [7.0, 6.0, 4.0]
    assert turn_credit.to_go(reward, gamma=0.5).tolist()[0][0] == [3.0, 4.0, 4.0]
    assert turn_credit.to_go(reward)[0, 1].nan_to_num(-1.0).tolist() == [3.0, -1.0, -1.0]


def test_each_turn_is_compared_with_the_same_turn_of_the_others():
    """Returns to go of turn 1: 7, 3, 2, mean 4; of turn 2: 6 and 0, mean 3; turn 3 is alone."""
    reward = torch.tensor([[[1.0, 2.0, 4.0], [3.0, NAN, NAN], [2.0, 0.0, NAN]]])
    found = turn_credit.by_turn(reward, credit.centre)
    assert found.tolist() == [[[3.0, 3.0, 0.0], [-1.0, 0.0, 0.0], [-2.0, -3.0, 0.0]]]


@pytest.mark.parametrize("function", [credit.centre, credit.standardise, credit.leave_one_out])
def test_reductions(function):
    reward = torch.tensor([[1.0, 0.0, NAN, 4.0], [2.0, 2.5, 0.5, 1.0]])
    assert torch.equal(turn_credit.by_turn(reward[..., None], function)[..., 0], function(reward)), "one turn"
    late = torch.stack([0 * reward, 0 * reward, reward], -1)
    for k in range(3):
        assert torch.equal(turn_credit.by_turn(late, function)[..., k], function(reward)), "all reward in the last turn"


def answer(rewards: list[float], lengths: list[int], replies: int = 2) -> Completion:
    """Turns of the model of these lengths, with an environment's of `replies` tokens between them."""
    turns: list[Turn] = []
    for n, (reward, length) in enumerate(zip(rewards, lengths, strict=True)):
        if n:
            turns.append(Turn(messages=(Message("tool", "x"),), tokens=replies, written=False))
        turns.append(Turn(messages=(Message("assistant", "y"),), tokens=length, written=True, reward=reward))
    count = sum(t.tokens for t in turns)
    return Completion(content="y", tokens=tuple(range(count)), behaviour_logp=(0.0,) * count, turns=tuple(turns))


def experience(answers: list[Completion], scores: list[float] | None = None, *, kl: float = 0.0) -> Experience:
    group = Group(prompt=Prompt(content="q"), completions=tuple(answers))
    given = EnvironmentReward()([group])[0]
    group = with_scores(group, given if scores is None else Scores(tuple(scores), earned=given.earned))
    tokens = tuple(Tokens(ids=c.tokens, mask=c.mask) for c in answers)
    rows = tuple(torch.zeros(len(c.tokens)) for c in answers)
    per_token = {
        "old_logp": rows,
        "ref_logp": tuple(r - torch.tensor(c.mask).float() for r, c in zip(rows, answers, strict=True)),
    }
    example = Example(tokens=TokenGroup(prompt=(1,), completions=tokens, group=group), per_token=per_token)
    reward = torch.tensor([group.scores])
    return Experience(examples=[example], reward=reward, kl_coefficient=kl, kl_estimator="k1", memory={}, seed=0, rollout=0)


def advantages(name: str, found: Experience) -> list[list[float]]:
    (example,) = CREDITS[name](found)
    return [row.tolist() for row in example.per_token["token_advantage"]]


def test_tokens_of_a_turn_have_its_advantage_and_those_of_the_environment_none():
    """To go: (1 + 2, 2) against (0, 0): means 1.5 and 1."""
    first, second = advantages("turn_centre", experience([answer([1.0, 2.0], [2, 3]), answer([0.0, 0.0], [1, 1])]))
    assert first == [1.5, 1.5, 0.0, 0.0, 1.0, 1.0, 1.0]
    assert second[:4] == [-1.5, 0.0, 0.0, -1.0]


def test_what_the_environment_does_not_give_counts_in_the_last_turn():
    """A reward of 5 beside the environment's 1 in turn 1: to go (6, 5); the other has 2 in its only turn."""
    found = advantages("turn_centre", experience([answer([1.0, 0.0], [1, 1]), answer([0.0], [2])], [6.0, 2.0]))
    assert found[0] == [2.0, 0.0, 0.0, 0.0]
    assert found[1][:2] == [-2.0, -2.0]


def test_a_kl_in_the_reward_counts_in_the_turn_where_it_arises():
    """k1 is 1 at each token that the model wrote; at 0.5: turn 1 costs 1.0 for 2 tokens, turn 2 1.5 for 3."""
    found = advantages("turn_leave_one_out", experience([answer([0.0, 0.0], [2, 3]), answer([0.0, 0.0], [1, 1])], kl=0.5))
    assert found[0][0] == pytest.approx(-(1.0 + 1.5) + (0.5 + 0.5))
    assert found[0][-1] == pytest.approx(-1.5 + 0.5)


def test_a_failed_answer_counts_nowhere():
    lost = answer([9.0, 9.0], [1, 1])
    lost = Completion(**{f: getattr(lost, f) for f in ("content", "tokens", "behaviour_logp", "turns")}, failed="KeyError")
    found = advantages("turn_centre", experience([lost, answer([1.0], [1]), answer([3.0], [1])]))
    assert found[0] == [0.0] * 4
    assert [row[0] for row in found[1:]] == [-1.0, 1.0]


def test_gae_steps_over_what_the_environment_said():
    """gamma = lam = 1 without values: the return of a token is what is earned from it on, and none belongs to the reply."""
    found = experience([answer([1.0, 2.0], [2, 1]), answer([0.0], [1])])
    advantage, _, mask = token_advantages(found, gamma=1.0, lam=1.0)
    assert advantage[0].tolist() == [3.0, 3.0, 0.0, 0.0, 2.0]
    assert mask[0].tolist() == [True, True, False, False, True]
    half = token_advantages(found, gamma=0.5, lam=1.0)[0]
    assert half[0].tolist() == [0.5 * (1.0 + 0.5 * 2.0), 1.0 + 0.5 * 2.0, 0.0, 0.0, 2.0], "a reply takes no time"
