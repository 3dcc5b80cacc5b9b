from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evenhand import methods
from evenhand.rewards.combine import Ensemble, ensemble_rule
from evenhand.rewards.implicit import PolicyReward
from evenhand.types import Completion, Group, Prompt
from tests.battery.world import network
from tests.golden.runs import Numbers


class Cut(Numbers):
    def tokenise(self, group, *, max_prompt, max_completion):
        return super().tokenise(group)


DPO = methods.build("dpo", {}, steps=1, max_tokens=8)
GROUPS = [
    Group(prompt=Prompt(content=p), completions=tuple(Completion(content=str(a), tokens=a) for a in answers))
    for p, answers in (("3 5", ((1, 2, 0), (4, 0))), ("7", ((9, 0), (1, 0), (2, 2, 2, 0))))
]


def by_hand(model, prompt: str, answer: tuple[int, ...]) -> float:
    """Sum of log-probs from the plain model on one row."""
    ids = [*map(int, prompt.split()), *answer]
    with torch.no_grad():
        table = model.hf(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    start = len(ids) - len(answer)
    return sum(float(table[start + n - 1, token]) for n, token in enumerate(answer))


def reward(**changes) -> PolicyReward:
    made = PolicyReward(policy=network(DPO), renderer=Cut(), beta=0.05, reference=network(DPO, seed=1), tokens_per_microbatch=12)
    return replace(made, **changes)


def test_dpo_reward_is_beta_times_the_log_ratio():
    pi, ref = network(DPO), network(DPO, seed=1)
    for group, scores in zip(GROUPS, reward()(GROUPS), strict=True):
        for completion, value in zip(group.completions, scores.values, strict=True):
            known = by_hand(pi, group.prompt.text, completion.tokens) - by_hand(ref, group.prompt.text, completion.tokens)
            assert value == pytest.approx(0.05 * known, rel=1e-5)


def test_local_reward_needs_no_reference():
    for group, scores in zip(GROUPS, reward(reference=None)(GROUPS), strict=True):
        known = [0.05 * by_hand(network(DPO), group.prompt.text, c.tokens) for c in group.completions]
        assert scores.values == pytest.approx(tuple(known), rel=1e-5)
        assert scores.parts["logp"] == pytest.approx(tuple(k / 0.05 for k in known), rel=1e-5)


def test_a_policy_that_is_its_reference_rewards_nothing():
    for scores in reward(reference=network(DPO))(GROUPS):
        assert scores.values == pytest.approx((0.0,) * len(scores.values), abs=1e-7)


def test_rewards_of_policies_form_ensembles():
    members = (reward(), reward(reference=None))
    joined = Ensemble(members, ensemble_rule("min"))(GROUPS)
    for scores, one, two in zip(joined, members[0](GROUPS), members[1](GROUPS), strict=True):
        assert scores.values == tuple(map(min, one.values, two.values))
