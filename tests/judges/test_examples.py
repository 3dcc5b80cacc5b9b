"""A preference model learns from the very questions it is asked, and its verdict does not depend on who is shown first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evenhand import methods
from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.judges import Comparison, LLMJudge
from evenhand.judges import template as templates
from evenhand.judges.local import LocalChat
from evenhand.judges.preference_model_prompts import TEMPLATE, check_letters, examples, letter_only
from evenhand.models.load import new_policy
from evenhand.seeding import rng
from evenhand.train.cost_accounting import Ledger
from evenhand.train.examples import Example, micro_batches
from evenhand.train.loop import Loop, evaluate
from evenhand.train.offline import FixedSource
from evenhand.train.optim import AdamW
from evenhand.types import Completion, Group, Prompt
from tests.data.tiny_tokenizers import character_tokenizer

METHOD = methods.build("preference_model", {}, steps=1, max_tokens=8)


def pair(number: int) -> Group:
    """Two one-letter answers; z is better than q."""
    order = ("z", "q") if number % 2 else ("q", "z")
    scores = tuple(float(x == "z") for x in order)
    return Group(prompt=Prompt(content=f"{number % 7}"), completions=tuple(Completion(content=x) for x in order), scores=scores)


def renderer() -> Renderer:
    return Renderer(character_tokenizer(more=("[CONTEXT]", "[RESPONSE A]", "[RESPONSE B]")))


def items(groups, r: Renderer, seed: int = 0) -> list[Example]:
    tokens = [r.tokenise(g, max_prompt=None, max_completion=None) for g in examples(groups, r, seed=seed)]
    check_letters(tokens)
    return [Example(tokens=letter_only(t)) for t in tokens]


def test_the_letter_names_the_place_of_the_better_answer():
    found = examples([pair(n) for n in range(200)], renderer(), seed=0)
    for example in found:
        text, letter = example.prompt.text, example.completions[0].text
        assert (
            text
            == f"[CONTEXT] {text[10]} [RESPONSE A] {'z' if letter == 'A' else 'q'} [RESPONSE B] {'q' if letter == 'A' else 'z'}"
        )
    assert 70 < sum(e.completions[0].text == "A" for e in found) < 130


def test_places_are_keyed():
    groups, r = [pair(n) for n in range(30)], renderer()
    letters = lambda seed: [e.completions[0].text for e in examples(groups, r, seed=seed)]  # noqa: E731
    assert letters(1) == letters(1) != letters(2)


def test_ties_ask_nothing_and_rankings_ask_every_pair():
    tied = replace(pair(0), scores=(1.0, 1.0))
    ranking = Group(
        prompt=Prompt(content="1"), completions=tuple(Completion(content=c) for c in "abcd"), scores=(3.0, 1.0, 2.0, 1.0)
    )
    assert examples([tied], renderer(), seed=0) == []
    assert len(examples([ranking], renderer(), seed=0)) == 5


def test_an_answer_without_a_score_is_in_no_pair():
    answers = tuple(Completion(content=c) for c in "zuq")
    (only,) = examples(
        [Group(prompt=Prompt(content="1"), completions=answers, scores=(1.0, float("nan"), 0.0))], renderer(), seed=0
    )
    assert ("RESPONSE A] z" in only.prompt.text) == (only.completions[0].text == "A")
    assert "] u" not in only.prompt.text


def test_the_loss_is_on_the_letter_alone():
    (item,) = items([pair(1)], renderer())
    (letter,) = item.tokens.completions
    assert letter.mask == (True, False)
    assert renderer().decode(letter.ids[:1]) in "AB"


def test_a_tokenizer_without_the_letters_is_refused():
    (item,) = items([pair(1)], renderer())
    same_id = replace(item.tokens.completions[0], ids=(0, 2))
    blind = [
        replace(item.tokens, completions=(same_id,), group=replace(item.tokens.group, completions=(Completion(content=x),)))
        for x in "AB"
    ]
    with pytest.raises(UserError, match="the same token"):
        check_letters(blind)


def test_it_learns_and_both_orders_agree():
    r = renderer()
    config = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4, "max_position_embeddings": 64, "initializer_range": 0.1,
    }  # fmt: skip
    policy = new_policy(config, r.tokenizer, seed=0, device="cpu")
    rows = items([pair(n) for n in range(64)], r)
    source = FixedSource(items=rows, prompts_per_step=16, tokens_per_microbatch=2000, seed=0, ledger=Ledger())
    optimizer = AdamW(policy, learning_rate=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0)
    before = evaluate(policy, METHOD.objective, micro_batches(rows, 4000))["loss"]
    for _ in Loop(model=policy, objective=METHOD.objective, source=source, optimizer=optimizer, factor=lambda i: 1.0).run(0, 40):
        pass
    assert before > 1.0
    assert evaluate(policy, METHOD.objective, micro_batches(rows, 4000))["loss"] < 0.1
    judge = LLMJudge(LocalChat(policy, r, name="pm"), templates.get(TEMPLATE), form="logprobs", attempts=1)
    ask = lambda a, b: judge([Comparison(prompt=Prompt(content="3"), a=Completion(content=a), b=Completion(content=b))])[0]  # noqa: E731
    assert ask("z", "q").outcome > 0.9
    assert ask("z", "q").outcome + ask("q", "z").outcome == pytest.approx(1.0)
    draw = rng("pairs")
    for _ in range(3):  # whatever the model thinks of them
        a, b = ("".join(draw.choice(list("abcxyz"), 2)) for _ in range(2))
        assert ask(a, b).outcome + ask(b, a).outcome == pytest.approx(1.0)
    assert torch.isfinite(torch.tensor(ask("z", "q").outcome))
