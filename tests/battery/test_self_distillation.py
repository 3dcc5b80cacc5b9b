"""Self-distillation: who is shown which answer, what the policy then says of its own, and that nothing new teaches nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from evenhand import methods
from evenhand.errors import UserError
from evenhand.train import example_codec, flops, loop
from evenhand.train.examples import Example, micro_batches
from evenhand.train.rollouts.experience import HINDSIGHT, Experience
from evenhand.train.rollouts.reader import Reader
from evenhand.train.rollouts.teacher_credits import InHindsight, SelfTeacherAdvantage, ShownGood
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


def rollout(*scores: float) -> tuple[torch.nn.Module, Reader, list[Example]]:
    """A tiny policy, its reader, and a rollout of one prompt."""
    policy = network(methods.build("rloo", {}, steps=1, max_tokens=8))
    made = group(*scores)
    rows = tuple(Tokens(ids=c.tokens, mask=(True,) * len(c.tokens)) for c in made.completions)
    tokens = TokenGroup(prompt=(3, 4), completions=rows, group=made)
    reader = Reader(
        tokenise=lambda g: tokens, read=lambda heads, items: {Head.LOGP: logps_of(policy, items)},
        prompt_ids=lambda prompt: tuple(map(int, prompt.text.split())),
    )  # fmt: skip
    return policy, reader, [Example(tokens=tokens)]


def credited(credit: InHindsight, examples: list[Example], scores: tuple[float, ...]) -> list[Example]:
    return credit(
        Experience(
            examples=examples, reward=torch.tensor([scores]), kl_coefficient=0.0, kl_estimator="k1", memory={}, seed=0, rollout=0
        )
    )


def told(credit: SelfTeacherAdvantage, *scores: float):
    """A rollout of one prompt, read by a tiny policy: the network, its example in hindsight, and its advantages."""
    policy, reader, examples = rollout(*scores)
    (example,) = reader.in_hindsight(reader(examples, frozenset({Head.LOGP}), generator_is_reference=False), credit)
    return policy, example, credited(credit, [example], scores)[0].per_token["token_advantage"]


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


@pytest.mark.parametrize("name", ["self_distillation", "exact_self_distillation"])
def test_words_that_leave_the_answer_out_are_refused(name):
    for words in ("{prompt}", "{answer}"):
        with pytest.raises(UserError, match="the words lack"):
            methods.build(name, {"words": words}, steps=1, max_tokens=8)


# ---- over the whole vocabulary -------------------------------------------------------------------------------------------


def exact(beta: float = 0.5) -> methods.Method:
    return methods.build("exact_self_distillation", {"beta": beta}, steps=1, max_tokens=8)


def taught(*scores: float, words: str = "{answer} {prompt}") -> list[Example]:
    credit = ShownGood(success=1.0, words=words)
    _, reader, examples = rollout(*scores)
    return credited(credit, reader.beside_good(examples, credit), scores)


def distributions(model: torch.nn.Module, prompt: list[int], answer: tuple[int, ...]) -> torch.Tensor:
    """log p [tokens, V] at every token of an answer, by transformers' own forward pass."""
    logits = model.hf(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
    return logits[len(prompt) - 1 : -1]


def jensen_shannon(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """By its definition: the entropy of the mean less the mean of the entropies."""

    def entropy(p: torch.Tensor) -> torch.Tensor:
        return -(p * p.log()).sum(-1)

    return entropy((one.exp() + other.exp()) / 2) - (entropy(one.exp()) + entropy(other.exp())) / 2


SEEN = {0: [6, 7, 3, 4], 1: [8, 9, 2, 3, 4], 2: [6, 7, 3, 4]}
"""What the teacher reads before each answer: the best of the others, then the prompt."""
ANSWERS = {0: (5,), 1: (6, 7), 2: (8, 9, 2)}


def test_its_loss_is_the_divergence_to_what_its_average_says_with_the_answer_before_it():
    """Value and gradient, by transformers' own forward passes of both networks; all six tokens weigh alike."""
    policy, average = network(exact()), network(exact(), seed=20)
    items = taught(0.0, 2.0, 1.0)
    assert [len(i.tokens.completions) for i in items] == [3], "the prompt is read once, whatever is shown"
    loss, _ = loop.accumulate(policy.compared_to(average, exact().measure), exact().objective, micro_batches(items, 1000))
    by_hand = network(exact())
    rows = [
        jensen_shannon(distributions(by_hand, [3, 4], ANSWERS[i]), distributions(average, SEEN[i], ANSWERS[i]).detach())
        for i in range(3)
    ]
    known = torch.cat(rows).mean()
    known.backward()
    torch.testing.assert_close(loss.double(), known.detach(), rtol=1e-6, atol=1e-9)
    assert loss > 1e-4
    for (name, own), theirs in zip(policy.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-4, atol=1e-8, msg=name)


def test_an_answer_that_is_shown_nothing_counts_in_the_denominator_alone():
    live, dead = taught(0.0, 1.0, 0.5)
    assert [c.ids for c in live.tokens.completions] == [ANSWERS[0], ANSWERS[2]]
    assert dead.denominator_only
    assert [c.ids for c in dead.tokens.completions] == [ANSWERS[1]]
    policy = network(exact()).compared_to(network(exact(), seed=20), exact().measure)
    alone, _ = loop.accumulate(policy, exact().objective, micro_batches([live], 1000))
    both, _ = loop.accumulate(policy, exact().objective, micro_batches([live, dead], 1000))
    assert float(both) == pytest.approx(float(alone) * 4 / 6)
    assert taught(0.0, 0.5, 0.9)[0].denominator_only


def test_a_teacher_of_the_same_weights_that_is_shown_nothing_new_has_nothing_to_teach():
    policy = network(exact())
    policy.compared_to(network(exact()), exact().measure)
    loss, _ = loop.accumulate(policy, exact().objective, micro_batches(taught(1.0, 1.0, 1.0, words="{prompt}"), 1000))
    assert float(loss) == pytest.approx(0.0, abs=1e-12)
    assert max(float(p.grad.abs().max()) for p in policy.parameters() if p.grad is not None) < 1e-7


def test_it_is_exact_distillation_where_its_teacher_reads_the_prompt_alone():
    other = methods.build("exact_distillation", {"beta": 0.5}, steps=1, max_tokens=8)
    items = taught(1.0, 1.0, 1.0, words="{prompt}")
    grads = []
    for method, rows in ((exact(), items), (other, [replace(i, shown=()) for i in items])):
        model = network(method)
        loop.accumulate(model, method.objective, micro_batches(rows, 1000))
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-9)
    assert grads[0].abs().max() > 1e-4


def test_it_does_not_matter_how_a_step_is_cut_nor_that_it_was_kept():
    items = [*taught(0.0, 2.0, 1.0), *taught(1.0, 0.0), *taught(0.0, 1.0, 0.5)]
    kept = [example_codec.from_json(example_codec.to_json(i)) for i in items]
    assert [i.shown for i in kept] == [i.shown for i in items]
    found = []
    for rows, tokens in ((items, 1000), (kept, 9)):
        model = network(exact())
        loss, _ = loop.accumulate(model, exact().objective, micro_batches(rows, tokens))
        found.append(torch.cat([loss.reshape(1).double(), *(p.grad.flatten() for p in model.parameters())]))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-9)


def test_what_the_teacher_reads_is_paid_for():
    """Two passes of one size: the teacher's costs what a pass over its longer prompts costs."""
    model, heads = network(exact()), frozenset({Head.KL})
    (batch,) = micro_batches(taught(0.0, 2.0, 1.0), 1000)
    shape = flops.shape_of(model)
    alone = flops.of_pass(model, shape, batch.layout, heads, learns=False) / 2
    longer = flops.of_pass(model, shape, batch.shown.layout, heads, learns=False) / 2
    assert longer > alone
    assert flops.of_pass(model, shape, batch.layout, heads, learns=False, shown=batch.shown.layout) == alone + longer
