"""Answers to one prompt compared with each other, by a judge of pairs or by a reward: what labels are made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

from evenhand.judges import Comparison, Judge, RewardJudge, Verdict
from evenhand.protocols import Reward
from evenhand.rewards.annotate import different
from evenhand.seeding import rng
from evenhand.types import Group
from evenhand.worlds.labels import Annotator

Choose = Literal["random", "best_worst", "all"]
"""Which pairs of a prompt's answers: two at random, the best against the worst, or every two."""
Progress = Callable[[int, int], None]
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Asked:
    """A group's different answers, and which of them shall be compared."""

    group: Group
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedAnswers:
    """`chance[i, j]` = P(answer i is preferred to answer j) for the pairs that could be compared.

    `gap` is their difference, in units of the reward where a reward compared, else `2 chance - 1`. `value`: the reward of each
    answer, or the mean chance against those it was compared with (Borda).
    """

    group: Group
    chance: dict[Pair, float] = field(default_factory=dict)
    gap: dict[Pair, float] = field(default_factory=dict)
    value: tuple[float, ...] = ()
    unread: int = 0
    """Pairs without a usable verdict."""
    verdicts: tuple[Verdict, ...] = ()


def ask(group: Group, choose: Choose, key: int) -> Asked:
    """What to compare; nothing where there are no two different answers. The first of equal texts stands for all."""
    answers = different(group)
    if len(answers) < 2:
        return Asked(Group(prompt=group.prompt, completions=tuple(answers)), ())
    if choose == "random":
        first, second = rng(key, group.prompt.id).choice(len(answers), 2, replace=False)
        return Asked(Group(prompt=group.prompt, completions=(answers[first], answers[second])), ((0, 1),))
    return Asked(Group(prompt=group.prompt, completions=tuple(answers)), tuple(combinations(range(len(answers)), 2)))


def by_judge(
    asked: Sequence[Asked], judge: Judge, annotator: Annotator, progress: Progress | None = None
) -> list[ComparedAnswers]:
    """Every asked pair by `judge`: a reward scores each answer once, any other judge sees each pair in both orders.

    `annotator` turns the difference of two rewards into a chance; a judge of pairs has its own.
    """
    if isinstance(judge, RewardJudge):
        return _by_reward(asked, judge.reward, judge.tie, annotator, progress)
    questions = [(n, pair) for n, a in enumerate(asked) for pair in a.pairs]
    comparisons = [
        Comparison(prompt=asked[n].group.prompt, a=asked[n].group.completions[i], b=asked[n].group.completions[j])
        for n, (i, j) in questions
    ]
    found: list[list[tuple[Pair, Verdict]]] = [[] for _ in asked]
    for (n, pair), verdict in zip(questions, judge(comparisons, progress), strict=True):
        found[n].append((pair, verdict))
    return [_from_verdicts(a.group, verdicts) for a, verdicts in zip(asked, found, strict=True)]


def _from_verdicts(group: Group, verdicts: Sequence[tuple[Pair, Verdict]]) -> ComparedAnswers:
    chance = {pair: v.outcome for pair, v in verdicts if not v.invalid}
    wins: list[list[float]] = [[] for _ in group.completions]
    for (i, j), p in chance.items():
        wins[i].append(p)
        wins[j].append(1 - p)
    return ComparedAnswers(
        group=group,
        chance=chance,
        gap={pair: 2 * p - 1 for pair, p in chance.items()},
        value=tuple(sum(w) / len(w) if w else math.nan for w in wins),
        unread=len(verdicts) - len(chance),
        verdicts=tuple(v for _, v in verdicts),
    )


def _by_reward(
    asked: Sequence[Asked], reward: Reward, tie: float, annotator: Annotator, progress: Progress | None
) -> list[ComparedAnswers]:
    wanted = [n for n, a in enumerate(asked) if a.pairs]
    values: list[tuple[float, ...]] = [(math.nan,) * len(a.group.completions) for a in asked]
    for n, scores in zip(wanted, reward([asked[n].group for n in wanted]), strict=True):
        values[n] = tuple(scores.values)
    if progress is not None:
        progress(len(wanted), len(wanted))
    return [_from_scores(a, v, tie, annotator) for a, v in zip(asked, values, strict=True)]


def _from_scores(asked: Asked, values: tuple[float, ...], tie: float, annotator: Annotator) -> ComparedAnswers:
    texts = [c.text for c in asked.group.completions]
    utility = [annotator.utility(v, text) for v, text in zip(values, texts, strict=True)]
    readable = [(i, j) for i, j in asked.pairs if not math.isnan(values[i]) and not math.isnan(values[j])]
    same = {(i, j) for i, j in readable if values[i] == values[j] or abs(values[i] - values[j]) <= tie}
    return ComparedAnswers(
        group=asked.group,
        chance={(i, j): 0.5 if (i, j) in same else annotator.probability(utility[i], utility[j]) for i, j in readable},
        gap={(i, j): 0.0 if (i, j) in same else values[i] - values[j] for i, j in readable},
        value=values,
        unread=len(asked.pairs) - len(readable),
    )
