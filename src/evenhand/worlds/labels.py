"""An annotator that is noisy in a known way: Bradley-Terry labels, a length bias, and random flips."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evenhand.errors import UserError
from evenhand.seeding import keyed, rng
from evenhand.types import Group, Scores

WORD = re.compile(r"[A-Za-z0-9]+(?:['-][A-Za-z0-9]+)*")


def words(text: str) -> list[str]:
    """The words of a text, lower case, punctuation dropped.

    >>> words("Dear Mara, the well-known tune.")
    ['dear', 'mara', 'the', 'well-known', 'tune']
    """
    return [w.lower() for w in WORD.findall(text)]


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), without overflow."""
    return 0.5 * (1.0 + math.tanh(0.5 * x))


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotator:
    """Prefers `a` to `b` with probability `flip + (1 - 2 flip) sigmoid(u(a) - u(b))`.

    `u = (reward + bias_per_word * words) / temperature`.
    `temperature > 0` is in units of the reward; `bias_per_word`, in the same units, is the planted length bias: what a longer
    answer gains in the annotator's eyes without being better. `flip` in [0, 1/2) is the share of labels drawn wrong whatever
    the texts. Source: Bradley and Terry 1952; the biased and flipping annotator is the usual stand-in for human labels.
    With `bias_per_word = flip = 0` and `temperature -> 0` it picks the higher reward.
    """

    temperature: float
    bias_per_word: float = 0.0
    flip: float = 0.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"the annotator's temperature is {self.temperature}", where="temperature", fix="use a number above 0")
        if not 0 <= self.flip < 0.5:
            raise UserError(f"the annotator's flip rate is {self.flip}", where="flip", fix="use a number in [0, 0.5)")

    def utility(self, reward: float, text: str) -> float:
        """What the annotator feels for an answer, in nats of log-odds.

        >>> Annotator(temperature=0.5, bias_per_word=0.1).utility(1.0, "two words")
        2.4
        """
        return (reward + self.bias_per_word * len(words(text))) / self.temperature

    def probability(self, utility_a: float, utility_b: float) -> float:
        """P(a is preferred to b).

        >>> Annotator(temperature=1.0, flip=0.1).probability(2.0, 2.0)
        0.5
        """
        return self.flip + (1.0 - 2.0 * self.flip) * sigmoid(utility_a - utility_b)

    def label(self, group: Group, scores: Scores, generator: np.random.Generator) -> Group:
        """The pair `group` with scores 1 (preferred) and 0, in the order given.

        `parts` gain `gold` (the reward), `utility` and `preference` (P(this one is preferred)); `ceiling` reads them.
        """
        if len(group.completions) != 2:
            raise UserError(
                f"a pair has two answers, this group has {len(group.completions)}",
                where=f"prompt {group.prompt.id}",
                fix="select two answers of each group first",
            )
        if any(map(math.isnan, scores.values)):
            raise UserError(
                "an answer without a reward cannot be compared",
                where=f"prompt {group.prompt.id}",
                fix="drop the groups that the reward could not score",
            )
        utility = tuple(self.utility(r, c.text) for r, c in zip(scores.values, group.completions, strict=True))
        first = self.probability(*utility)
        win = float(generator.random() < first)
        parts = {**group.parts, "gold": tuple(scores.values), "utility": utility, "preference": (first, 1.0 - first)}
        return replace(group, scores=(win, 1.0 - win), parts=parts)


def label_all(annotator: Annotator, groups: Sequence[Group], scores: Sequence[Scores], *, seed: int) -> list[Group]:
    """Label each pair with its own draw, keyed by (seed, place, prompt), so that a longer list begins like a shorter one."""
    return [
        annotator.label(group, score, rng(keyed(seed, "label"), i, group.prompt.id))
        for i, (group, score) in enumerate(zip(groups, scores, strict=True))
    ]


def ceiling(groups: Sequence[Group]) -> float:
    """The best accuracy any reward model can reach on labels drawn like these: `mean max(p, 1 - p)`, p = P(first preferred).

    Exact given the texts: the Bayes-optimal model knows p and picks the likelier answer. In [1/2, 1].
    """
    return float(np.mean([max(_preference(g)) for g in groups]))


def gold_ceiling(groups: Sequence[Group]) -> float:
    """The accuracy of the gold reward itself on labels drawn like these; below `ceiling` by what the length bias costs.

    `mean P(the answer with the higher gold is preferred)`; a tie in gold counts 1/2.
    """
    return float(np.mean([_gold_agreement(g.parts["gold"], _preference(g)) for g in groups]))


def _gold_agreement(gold: Sequence[float], preference: Sequence[float]) -> float:
    if gold[0] == gold[1]:
        return 0.5
    return preference[0] if gold[0] > gold[1] else preference[1]


def _preference(group: Group) -> tuple[float, ...]:
    if "preference" not in group.parts:
        raise UserError(
            "these pairs do not carry the annotator's probabilities",
            where=f"prompt {group.prompt.id}",
            why="the ceiling is known only for labels that a program drew",
            fix="use pairs from a world or from rewards.annotate",
        )
    return group.parts["preference"]


def repeated_share(sequence: Sequence[str], n: int) -> float:
    """Share of the runs of n of a sequence that occurred earlier in it; 0 when it has none.

    >>> repeated_share(["a", "b", "a", "b", "a"], 2)
    0.5
    """
    runs = [tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)]
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0
