"""Self-distillation: who is shown which answer, what the policy then says of its own, and that nothing new teaches nothing."""

from __future__ import annotations

import math

import pytest
import torch

from evenhand import methods
from evenhand.errors import UserError
from evenhand.train.examples import Example
from evenhand.train.rollouts.experience import HINDSIGHT, Experience
from evenhand.train.rollouts.reader import Reader
from evenhand.train.rollouts.teacher_credits import SelfTeacherAdvantage
from evenhand.types import Completion, Group, Head, Message, Prompt, TokenGroup, Tokens
from tests.battery.world import logps_of, network

CREDIT = SelfTeacherAdvantage(success=1.0, words="{answer} {prompt}")


def group(*scores: float, prompt: str = "3 4", answers: tuple[tuple[int, ...], ...] = ((5,), (6, 7), (8, 9, 2))) -> Group:
    said = tuple(Completion(content=" ".join(map(str, a)), tokens=a) for a in answers[: len(scores)])
    return Group(prompt=Prompt(content=prompt), completions=said, scores=scores)


@pytest.mark.parametrize(("scores", "known"), [
    ((0.0, 1.0, 2.0), [2, 2, 1]), ((1.0, 1.0, 0.0), [1, 0, 0]), ((0.5, 0.9, 0.0), [None] * 3), ((0.0, 1.0), [1, None]),
    ((math.nan, 1.0, math.nan), [1, None, 1]),
])  # fmt: skip
def test_an_answer_is_shown_the_best_of_the_others(scores, known):
    assert CREDIT.shown(group(*scores)) == known


def test_prompt_and_answer_are_put_where_the_words_say():
    """In the last turn of the user, and whatever marks they hold themselves."""
    credit = SelfTeacherAdvantage(success=1.0, words="{prompt} | {answer}")
    answer = Completion(content="{prompt}!")
    assert credit.asked(Prompt(content="a {answer}"), answer).content == "a {answer} | {prompt}!"
    turns = (Message("system", "s"), Message("user", "q"), Message("assistant", "a"), Message("user", "r"))
    asked = credit.asked(Prompt(content=turns, meta={"k": 1}), answer)
    assert [m.content for m in asked.content] == ["s", "q", "a", "r | {prompt}!"]
    assert asked.meta == {"k": 1}
    assert asked.id != Prompt(content=turns).id


def told(credit: SelfTeacherAdvantage, *scores: float):
    """A rollout of one prompt, read by a tiny policy: the network, its example in hindsight, and its advantages."""
    policy = network(methods.build("rloo", {}, steps=1, max_tokens=8))
    made = group(*scores)
    rows = tuple(Tokens(ids=c.tokens, mask=(True,) * len(c.tokens)) for c in made.completions)
    tokens = TokenGroup(prompt=(3, 4), completions=rows, group=made)
    reader = Reader(
        tokenise=lambda g: tokens, read=lambda heads, items: {Head.LOGP: logps_of(policy, items)},
        prompt_ids=lambda prompt: tuple(map(int, prompt.text.split())),
    )  # fmt: skip
    (example,) = reader.in_hindsight(
        reader([Example(tokens=tokens)], frozenset({Head.LOGP}), generator_is_reference=False), credit
    )
    experience = Experience(
        examples=[example], reward=torch.tensor([scores]), kl_coefficient=0.0, kl_estimator="k1", memory={}, seed=0, rollout=0
    )
    return policy, example, credit(experience)[0].per_token["token_advantage"]


def test_its_advantage_is_what_a_good_answer_changes_of_its_words():
    """By transformers' own forward pass on both prompts; the best has no good one beside it, and learns nothing."""
    policy, example, advantage = told(CREDIT, 0.0, 1.0, 0.5)

    def said(prompt: list[int], answer: tuple[int, ...]) -> torch.Tensor:
        with torch.no_grad():
            logits = policy.hf(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
        return torch.stack([logits[len(prompt) - 1 + n, token] for n, token in enumerate(answer)])

    for i, answer in enumerate(((5,), (6, 7), (8, 9, 2))):
        known = said([6, 7, 3, 4], answer) - said([3, 4], answer) if i != 1 else torch.zeros(2, dtype=torch.float64)
        torch.testing.assert_close(advantage[i].double(), known, rtol=0, atol=1e-5)
    assert advantage[0].abs().max() > 1e-3
    assert torch.equal(example.per_token[HINDSIGHT][1], example.per_token["old_logp"][1])


def test_a_teacher_that_is_shown_nothing_new_teaches_nothing():
    _, _, advantage = told(SelfTeacherAdvantage(success=1.0, words="{prompt}"), 0.0, 1.0, 1.0)
    assert max(float(row.abs().max()) for row in advantage) < 1e-6


def test_words_that_leave_the_answer_out_are_refused():
    for words in ("{prompt}", "{answer}"):
        with pytest.raises(UserError, match="the words lack"):
            methods.build("self_distillation", {"words": words}, steps=1, max_tokens=8)
