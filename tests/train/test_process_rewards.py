"""What a reward says was earned at each token: through the credits that work per token, and from a policy as a process reward."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from evenhand.rewards.combine import WeightedReward
from evenhand.rewards.implicit import PolicyReward
from evenhand.train.examples import Example, with_pairs
from evenhand.train.rollouts.credits import Gae, token_advantages
from evenhand.train.rollouts.experience import Experience
from evenhand.train.rollouts.shaping import with_scores
from evenhand.types import Completion, Group, Prompt, Scores
from tests.battery.test_bandit import ANSWERS
from tests.battery.test_reductions import built, labelled, step
from tests.battery.tree import group_of, tokenise
from tests.battery.world import items_for, network
from tests.golden.runs import Numbers

PAIR = [a for a in ANSWERS if len(a) > 1][:2]


def experience(scores: tuple[float, ...], earned: tuple[tuple[float, ...], ...], value: float = 0.0) -> Experience:
    group = with_scores(group_of(PAIR, (0.0,) * 2), Scores(scores, earned=earned))
    rows = tuple(torch.zeros(len(c.tokens)) for c in group.completions)
    per_token = {"old_logp": rows, "value": tuple(r + value for r in rows)}
    example = Example(tokens=tokenise(group), per_token=per_token)
    reward = torch.tensor([scores])
    return Experience(examples=[example], reward=reward, kl_coefficient=0.0, kl_estimator="k1", memory={}, seed=0, rollout=0)


def test_the_return_of_a_token_is_what_is_earned_from_there_on():
    """An answer worth 2 of which .5 is earned at its first token, and one that tells nothing: all at the end."""
    length = len(PAIR[0])
    found = experience((2.0, 1.0), ((0.5,) + (0.0,) * (length - 1), ()))
    advantage, _, mask = token_advantages(found, gamma=1.0, lam=1.0)
    assert advantage[0, :length].tolist() == pytest.approx([2.0] + [1.5] * (length - 1))
    assert advantage[1][mask[1]].tolist() == pytest.approx([1.0] * len(PAIR[1]))


def test_nothing_is_earned_by_an_answer_without_a_score():
    found = experience((math.nan, 1.0), ((0.5,) * len(PAIR[0]), (0.25,) * len(PAIR[1])))
    advantage, _, mask = token_advantages(found, gamma=1.0, lam=1.0)
    assert not mask[0].any()
    assert advantage[0].tolist() == [0.0] * advantage.shape[1]
    left = [1.0 - 0.25 * t for t in range(len(PAIR[1]))]
    assert advantage[1][mask[1]].tolist() == pytest.approx(left)


def test_one_step_of_gae_sees_a_token_s_own_earning():
    """lam = 0, gamma = 1, a constant value: the error of every token but the last is what it earned."""
    length = len(PAIR[0])
    found = experience((1.0, 1.0), ((0.3,) + (0.0,) * (length - 1), ()), value=0.2)
    advantage, _, mask = token_advantages(found, gamma=1.0, lam=0.0)
    known = [0.3] + [0.0] * (length - 2) + [0.7 - 0.2]
    assert advantage[0][mask[0]].tolist() == pytest.approx(known)
    assert Gae(lam=0.0)(found)[0].per_token["token_advantage"][0].shape == (length,)


def test_a_weighted_sum_keeps_what_was_earned():
    told = lambda groups: [Scores((1.0, 2.0), earned=((0.5, 0.5), (2.0,))) for _ in groups]  # noqa: E731
    silent = lambda groups: [Scores((3.0, 4.0)) for _ in groups]  # noqa: E731
    found = WeightedReward({"a": (told, 2.0), "b": (silent, 1.0)})([group_of(PAIR, (0.0, 0.0))])[0]
    assert found.values == (5.0, 8.0)
    assert found.earned == ((1.0, 1.0), (4.0,))
    assert WeightedReward({"b": (silent, 1.0)})([group_of(PAIR, (0.0, 0.0))])[0].earned == ()


def test_a_policy_earns_its_log_ratio_token_by_token():
    """beta (log pi - log ref) of every token by the plain networks; their sum is the reward."""
    policy, frozen = (network(built("sft"), seed) for seed in (0, 3))
    ids = (3, 7, 0)
    group = Group(prompt=Prompt(content="1 2"), completions=(Completion(content="3 7", tokens=ids),))

    class Sampled(Numbers):
        def tokenise(self, group, **limits):
            return super().tokenise(group)

    found = PolicyReward(policy=policy, renderer=Sampled(), beta=0.5, reference=frozen)([group])[0]
    with torch.no_grad():
        logp = [m.hf(input_ids=torch.tensor([[1, 2, *ids]])).logits[0].log_softmax(-1) for m in (policy, frozen)]
    known = [0.5 * float(logp[0][1 + t, token] - logp[1][1 + t, token]) for t, token in enumerate(ids)]
    assert found.earned[0] == pytest.approx(known, abs=1e-5)
    assert found.values[0] == pytest.approx(sum(known), abs=1e-5)


def test_of_a_pair_s_two_labels_it_is_bco_pair():
    """The pair's loss is the sum of its answers', the labels' their mean: half of it, and half of its gradient."""
    method, pairs = built("implicit_process_reward", beta=0.3), items_for(built("bco_pair"))
    singles = [labelled(replace(item.only([n]), tokens=with_score(item, n)), method) for item in pairs for n in range(2)]
    known, found = step(built("bco_pair", beta=0.3), [with_pairs(i) for i in pairs]), step(method, singles)
    torch.testing.assert_close(2 * found[0], known[0], check_dtype=False)
    torch.testing.assert_close(2 * found[1], known[1], rtol=1e-5, atol=1e-7)


def with_score(item: Example, n: int):
    """The answer alone, labelled 1 where it is the better one."""
    tokens = item.only([n]).tokens
    better = item.tokens.group.scores[n] == max(item.tokens.group.scores)
    return replace(tokens, group=replace(tokens.group, scores=(float(better),)))
