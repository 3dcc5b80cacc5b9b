"""Pairs with weights, in every method of pairs: a soft label is that share of hard ones, a ranking weighs as much as a pair."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

import pytest
import torch

from evenhand import methods
from evenhand.data.convert import SOFT
from evenhand.train.examples import Example, micro_batches, with_pairs
from evenhand.types import Need
from tests.battery import variants
from tests.battery.world import gradients, items_for

PAIRED = [n for n in methods.METHODS if Need.PAIRS in variants.build(n, steps=6, max_tokens=8).objective.needs]
RATED = {"odpo", "rebel", "rebel_online", "dno"}
"""Of these a label's certainty is a rating gap as well: see `test_a_soft_label_is_a_rating_gap_too`."""
GOLDEN = {"tpo"}
"""Of three ranked answers the best is in no pair: see `test_gold`."""
OPTIMISTIC = {"xpo", "selm"}
"""Beside the pairs they hope for answers, one by one: an answer counts once in however many pairs it stands."""
UNRATED = [n for n in PAIRED if n not in RATED | GOLDEN]


def built(name: str):
    return variants.build(name, steps=6, max_tokens=8)


def step(method, items: list[Example]):
    return gradients(method, micro_batches(items, 60))


def same(a, b) -> None:
    """Equal but for the rounding of the copies' sums in single precision (norms, weights)."""
    scale = float(b[1].abs().max())
    torch.testing.assert_close(a[0], b[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(a[1], b[1], rtol=0, atol=1e-5 * scale)


def soft(item: Example, p: float) -> Example:
    """The item's two answers, the first of which is the better one with probability p."""
    group = replace(item.tokens.group, scores=(p, 1 - p), parts={SOFT: (p, 1 - p)})
    return with_pairs(replace(item, tokens=replace(item.tokens, group=group)))


def hard(item: Example, first: bool) -> Example:
    group = replace(item.tokens.group, scores=(1.0, 0.0) if first else (0.0, 1.0))
    return with_pairs(replace(item, tokens=replace(item.tokens, group=group)))


@pytest.mark.parametrize("name", UNRATED)
def test_a_soft_label_is_that_share_of_hard_ones(name):
    """3/4 for the first answer: three rows that call it better, and one that calls the other better."""
    method = built(name)
    items = items_for(method)
    copies = [hard(i, first) for i in items for first in (True, True, True, False)]
    same(step(method, [soft(i, 0.75) for i in items]), step(method, copies))


def test_a_soft_label_is_a_rating_gap_too():
    """3/4 and 1/4 are a gap of 1/2, for one answer and against the other: REBEL regresses on it, ODPO asks for its log."""
    rebel, odpo = built("rebel"), built("odpo")
    items = items_for(rebel)
    rated = [replace(hard(i, True), margin=(0.5,)) for i in items]
    same(step(rebel, [soft(i, 0.75) for i in items]), step(rebel, rated))
    both = [replace(hard(i, first), margin=(0.5,)) for i in items for first in (True, True, True, False)]
    same(step(odpo, [soft(i, 0.75) for i in items]), step(odpo, both))


@pytest.mark.parametrize("name", [n for n in PAIRED if n not in GOLDEN])
def test_a_certain_label_is_a_hard_one(name):
    method = built(name)
    items = items_for(method)
    same(step(method, [soft(i, 1.0) for i in items]), step(method, [hard(i, True) for i in items]))


def ranking(item: Example, order: tuple[float, ...], of: Example) -> Example:
    """The item's prompt with the answers of both items, scored."""
    answers = (*item.tokens.completions, *of.tokens.completions)[: len(order)]
    texts = (*item.tokens.group.completions, *of.tokens.group.completions)[: len(order)]
    rows = {k: (*item.per_token[k], *of.per_token[k])[: len(order)] for k in item.per_token}
    each = {k: (*item.per_completion[k], *of.per_completion[k])[: len(order)] for k in item.per_completion}
    group = replace(item.tokens.group, completions=texts, scores=order)
    tokens = replace(item.tokens, completions=answers, group=group)
    return with_pairs(replace(item, tokens=tokens, per_token=rows, per_completion=each))


@pytest.mark.parametrize("name", [n for n in PAIRED if n not in OPTIMISTIC | GOLDEN])
def test_a_ranking_weighs_as_much_as_a_pair(name):
    """Beside a plain pair, the pairs of a ranking of three count a third each: like rows of their own beside 3 of the pair."""
    method = built(name)
    one, two, three = items_for(method, prompts=3)
    ranked, plain = ranking(one, (2.0, 0.0, 1.0), two), hard(three, True)
    places = ((0, 1), (0, 2), (2, 1))
    assert set(ranked.pairs) == set(places)
    gaps = dict(zip(ranked.pairs, ranked.margin, strict=True))
    alone = [replace(ranked.only(pair), pairs=((0, 1),), margin=(gaps[pair],), pair_weight=(1.0,)) for pair in places]
    same(step(method, [ranked, plain]), step(method, [*alone, plain, plain, plain]))


@pytest.mark.parametrize("name", ["infonca", "nca", "qrpo"])
def test_an_answer_without_a_score_counts_nowhere(name):
    """As if it were not there; so does a prompt of which no answer has one."""
    method = built(name)
    first, second, *rest = items_for(method)
    there = [first.only([0, 2, 3]), *rest]
    unscored = [scored(first, (1,)), scored(second, range(4)), *rest]
    same(step(method, unscored), step(method, there))


def scored(item: Example, without: Collection[int]) -> Example:
    """The item whose answers `without` have no score."""
    scores = tuple(math.nan if n in without else s for n, s in enumerate(item.tokens.group.scores))
    group = replace(item.tokens.group, scores=scores)
    return replace(item, tokens=replace(item.tokens, group=group), per_completion={**item.per_completion, "score": scores})
