"""Preference labels from any reward, by an annotator whose noise is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evenhand.protocols import Reward
from evenhand.seeding import keyed, rng
from evenhand.types import Completion, Group
from evenhand.worlds.labels import Annotator, ceiling, label_all

__all__ = ["Annotated", "Annotator", "annotate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated:
    """`pairs` in the order of their prompts; `dropped`: prompts without two different answers."""

    pairs: tuple[Group, ...]
    dropped: int

    @property
    def ceiling(self) -> float:
        """The best accuracy that any reward model can reach on these labels."""
        return ceiling(self.pairs)


def annotate(groups: Sequence[Group], reward: Reward, annotator: Annotator, *, seed: int) -> Annotated:
    """One labelled pair per prompt: two of its different answers at random, scored 1 and 0 by the annotator.

    The first of two equal texts stands for both. The draw is keyed by the prompt and its place, so that it does not depend
    on what else is annotated with it.
    """
    drawn = [_two(group, keyed(seed, "annotate", place)) for place, group in enumerate(groups)]
    pairs = [pair for pair in drawn if pair is not None]
    return Annotated(pairs=tuple(label_all(annotator, pairs, reward(pairs), seed=seed)), dropped=len(groups) - len(pairs))


def _two(group: Group, key: int) -> Group | None:
    answers = different(group)
    if len(answers) < 2:
        return None
    first, second = rng(key, group.prompt.id).choice(len(answers), 2, replace=False)
    return Group(prompt=group.prompt, completions=(answers[first], answers[second]))


def different(group: Group) -> list[Completion]:
    """The answers with different texts, the first of equal ones."""
    return list({c.text: c for c in reversed(group.completions)}.values())
