"""Labels drawn from any reward."""

import math

import pytest

from evenhand.rewards.annotate import Annotator, annotate
from evenhand.rewards.pointwise import pointwise
from evenhand.types import Completion, Group, Prompt

size = pointwise(lambda prompt, completion: float(completion.text))


def groups(n, *texts):
    return [Group(prompt=Prompt(content=str(i)), completions=tuple(Completion(content=t) for t in texts)) for i in range(n)]


def test_frequencies_follow_bradley_terry():
    n = 3000
    found = annotate(groups(n, "0", "1"), size, Annotator(temperature=0.5), seed=0)
    wins = sum(dict(zip((c.text for c in g.completions), g.scores, strict=True))["1"] for g in found.pairs) / n
    p = 1 / (1 + math.exp(-2.0))
    assert abs(wins - p) < 4 * math.sqrt(p * (1 - p) / n)
    assert found.ceiling == pytest.approx(p)
    assert found.dropped == 0


def test_two_of_many_are_drawn_evenly():
    found = annotate(groups(1200, "0", "1", "2", "2", "2"), size, Annotator(temperature=1.0), seed=0)
    counts = {}
    for g in found.pairs:
        key = frozenset(c.text for c in g.completions)
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 3  # equal texts count once
    assert all(abs(c - 400) < 4 * math.sqrt(1200 * (1 / 3) * (2 / 3)) for c in counts.values())


def test_prompts_without_two_different_answers_are_dropped_and_counted():
    found = annotate([*groups(2, "0", "0"), *groups(1, "1"), *groups(3, "0", "1")], size, Annotator(temperature=1.0), seed=0)
    assert (len(found.pairs), found.dropped) == (3, 3)


def test_the_seed_decides():
    def draw(seed):
        return annotate(groups(30, "0", "1"), size, Annotator(temperature=1.0), seed=seed).pairs

    assert draw(1) == draw(1) != draw(2)
