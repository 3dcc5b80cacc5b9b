"""Answers of the data beside sampled ones: who gives them, and the pairs that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from typing_extensions import override

from evenhand.engines.checks import per_completion
from evenhand.seeding import keyed
from evenhand.train.examples import Example, with_pairs
from evenhand.train.rollouts.experience import Credit, Experience
from evenhand.types import Completion, Group, Need, Prompt, Sampling


def by_prompt(groups: Sequence[Group]) -> dict[str, Group]:
    """All answers that the data hold of each prompt, by its id."""
    found: dict[str, Group] = {}
    for group in groups:
        known = found.get(group.prompt.id)
        both = group.completions if known is None else known.completions + group.completions
        found[group.prompt.id] = Group(prompt=group.prompt, completions=both)
    return found


@dataclass(frozen=True)
class GivenAnswers:
    """An engine that says what the data say: one of a prompt's answers, drawn by the sampling's seed where there are several."""

    answers: Mapping[str, Group]

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling | Sequence[Sampling],
        *,
        max_prompt: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Group]:
        draws = per_completion(n, sampling)
        return [Group(prompt=p, completions=tuple(self._one(p, s.seed + i) for i, s in enumerate(draws))) for p in prompts]

    def _one(self, prompt: Prompt, seed: int) -> Completion:
        known = self.answers[prompt.id].completions
        return known[keyed(seed, "given", prompt.id) % len(known)]


@dataclass(frozen=True)
class GivenPreferred(Credit):
    """The data's answer, the last of its group, is better than every sampled one; one of the same text makes no pair."""

    provides: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS})
    per_completion: ClassVar[bool] = False
    rewarded: ClassVar[bool] = False

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        return [with_pairs(e) for e in map(self._ranked, experience.examples) if len(e.tokens.completions) > 1]

    def _ranked(self, example: Example) -> Example:
        *sampled, given = (c.text.strip() for c in example.tokens.group.completions)
        kept = [n for n, text in enumerate(sampled) if text != given]
        cut = example.only([*kept, len(sampled)])
        group = replace(cut.tokens.group, scores=(0.0,) * len(kept) + (1.0,))
        return replace(cut, tokens=replace(cut.tokens, group=group))
