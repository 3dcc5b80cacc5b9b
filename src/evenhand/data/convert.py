"""Groups of one kind as groups of another, and splits that keep a prompt on one side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from evenhand.errors import UserError, one_of
from evenhand.seeding import keyed
from evenhand.types import Group, Prompt

SOFT = "soft"
"""The part in which a pair carries (p, 1 - p), the chances of its answers to be preferred, as a label to learn from."""

MARGIN = "margin"
"""The part in which a pair carries the margin that the data ask of its scores (TRL's column `margin`), the same for both."""


def prompts(groups: Iterable[Group]) -> list[Group]:
    """Each distinct prompt once, in order of first appearance, without completions."""
    distinct: dict[str, Prompt] = {}
    for group in groups:
        distinct.setdefault(group.prompt.id, group.prompt)
    return [Group(prompt=prompt, completions=()) for prompt in distinct.values()]


def demonstrations(groups: Iterable[Group]) -> list[Group]:
    """The best completion of each group (the chosen one of a pair; the first among equals), without its score.

    Binary feedback keeps the groups labelled 1. Groups without a completion are left out.
    """
    kept = []
    for group in groups:
        scored = [s for s in group.scores if not math.isnan(s)]
        if not group.completions or (len(group.completions) == 1 and scored == [0.0]):
            continue
        best = group.scores.index(max(scored)) if scored else 0
        kept.append(Group(prompt=group.prompt, completions=(group.completions[best],)))
    return kept


def binary(groups: Iterable[Group]) -> list[Group]:
    """Each pair as two groups of one: the better completion labelled 1, the other 0. Ties are left out.

    >>> from evenhand.types import Completion, Prompt
    >>> pair = Group(prompt=Prompt(content="?"), completions=(Completion(content="a"), Completion(content="b")), scores=(3, 5))
    >>> [(g.completions[0].content, g.scores) for g in binary([pair])]
    [('b', (1.0,)), ('a', (0.0,))]
    """
    out = []
    for group in pairs(groups):
        chosen, rejected = group.completions
        out.append(Group(prompt=group.prompt, completions=(chosen,), scores=(1.0,)))
        out.append(Group(prompt=group.prompt, completions=(rejected,), scores=(0.0,)))
    return out


def pairs(groups: Iterable[Group], *, limit: int | None = None) -> list[Group]:
    """Every two completions of a group with different scores, the better one first, their scores kept.

    A ranking of k answers gives up to k(k-1)/2 pairs, the widest margins first; `limit` keeps so many of each group.
    """
    return [pair for group in groups for pair in pairs_of(group)[:limit]]


def pairs_of(group: Group) -> list[Group]:
    """The pairs of one group; see `pairs`."""
    scored = [i for i, s in enumerate(group.scores) if not math.isnan(s)]
    found = [(i, j) if group.scores[i] > group.scores[j] else (j, i) for i, j in itertools.combinations(scored, 2)]
    ranked = [(i, j) for i, j in found if group.scores[i] != group.scores[j]]
    ranked.sort(key=lambda ij: group.scores[ij[1]] - group.scores[ij[0]])  # stable: equal margins keep their order
    return [
        replace(
            group,
            completions=(group.completions[i], group.completions[j]),
            scores=(group.scores[i], group.scores[j]),
            parts={name: (values[i], values[j]) for name, values in group.parts.items()},
        )
        for i, j in ranked
    ]


def at_most_per_prompt(groups: Iterable[Group], limit: int) -> list[Group]:
    """The first `limit` groups of each prompt, in order."""
    seen: dict[str, int] = {}
    kept = []
    for group in groups:
        seen[group.prompt.id] = seen.get(group.prompt.id, 0) + 1
        if seen[group.prompt.id] <= limit:
            kept.append(group)
    return kept


def with_margin(groups: Iterable[Group], margin: float) -> list[Group]:
    """Groups whose best and worst known scores differ by more than `margin`; small gaps are mostly noise."""
    return [g for g in groups if (known := [s for s in g.scores if s == s]) and max(known) - min(known) > margin]


CONVERSIONS: Mapping[str, Callable[[list[Group]], list[Group]]] = {
    "prompts": prompts,
    "demonstrations": demonstrations,
    "binary": binary,
    "pairs": pairs,
}
"""What `use:` in a data source takes."""


def convert(groups: list[Group], use: str, *, where: str = "data") -> list[Group]:
    """The groups as another kind, by name; a UserError when nothing is left."""
    made = CONVERSIONS[one_of("conversion", use, CONVERSIONS, where=f"{where}.use")](groups)
    if groups and not made:
        raise UserError(
            f"no {use} can be made of these {len(groups)} groups",
            where=f"{where}.use",
            why="pairs and binary feedback need two answers with different scores, demonstrations need one",
        )
    return made


def holdout(groups: Sequence[Group], fraction: float, seed: int) -> tuple[list[Group], list[Group]]:
    """Split into (kept, held out) by prompt: about `fraction` of the prompts are held out, each with all its groups.

    A prompt's side depends on its id and the seed alone, so it stays there when other rows come or go.
    """
    if not 0 <= fraction <= 1:
        raise UserError(f"{fraction} is not a share", where="holdout.fraction", fix="use a number from 0 to 1")
    bound = fraction * 2**63
    held = {g.prompt.id: keyed(seed, "holdout", g.prompt.id) < bound for g in groups}
    return [g for g in groups if not held[g.prompt.id]], [g for g in groups if held[g.prompt.id]]


def shuffled(groups: Sequence[Group], seed: int) -> list[Group]:
    """A fixed random order: by a hash of seed, prompt and position among equal prompts."""
    seen: dict[str, int] = {}
    keys = []
    for group in groups:
        copy = seen[group.prompt.id] = seen.get(group.prompt.id, -1) + 1
        keys.append(keyed(seed, "shuffle", group.prompt.id, copy))
    return [group for _, group in sorted(zip(keys, groups, strict=True), key=lambda pair: pair[0])]
