"""Keys by what a user types: a path, the name of a mapping, a bare name, or another tool's word for it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from evenhand.errors import UserError
from evenhand.spec.aliases import ALIASES
from evenhand.spec.keys import Key, Section, sections

_UNDER = {"arms": "NAME", "reward_models": "NAME", "rewards": "NAME", "data": "SPLIT"}
_SPLITS = re.compile(r"data\.(demonstrations|preferences|prompts|heldout_preferences|heldout_prompts)\.")
_AGAIN = re.compile(r".+\.(train|sampling|lengths)(\.|$)")
"""Mappings that occur inside others, whose keys are listed once."""


@dataclass(frozen=True, slots=True)
class Found:
    """A key with the section that it stands in."""

    section: Section
    key: Key


def find(query: str) -> list[Found]:
    """The keys meant by `query`, in the order of the reference. Raises: UserError with the closest ones.

    >>> [f.key.path for f in find("arms.mine.train.warmup")], [f.key.path for f in find("lr")]
    (['train.warmup'], ['train.learning_rate'])
    >>> [f.key.path for f in find("cdpo")], [f.section.title for f in find("arms.dpo.beta")]
    (['arms.NAME.beta', 'arms.NAME.flip'], ['method: dpo'])
    """
    every = [Found(s, k) for s in sections() for k in s.keys]
    path = _normal(query)
    for wanted in dict.fromkeys((path, _normal(ALIASES.get(query, "")))):
        if wanted and (found := _meant(every, wanted)):
            return _of_its_kind(found, query)
    if found := [f for f in every if _kind(f) == query]:
        return found
    names = sorted({f.key.path for f in every} | {f.key.name for f in every})
    close = difflib.get_close_matches(query, names, n=3, cutoff=0.6)
    fix = f"did you mean {' or '.join(close)}?" if close else "`evenhand keys` lists the mappings of a file"
    raise UserError(f"no key is called '{query}'", where="keys", fix=fix)


def _meant(every: Sequence[Found], path: str) -> list[Found]:
    exact = [f for f in every if f.key.path == path]
    below = [f for f in every if f.section.path == path or f.key.path.startswith(f"{path}.")]
    named = [f for f in every if f.key.name == path] if "." not in path else []
    return below or exact or named


def _kind(found: Found) -> str:
    """The method or kind whose key it is; empty for what all have."""
    return found.section.title.partition(": ")[2]


def _of_its_kind(found: list[Found], query: str) -> list[Found]:
    """Below a name that is also a method's or a kind's, such as an arm `dpo`: its own keys, and those that all have."""
    named = query.split(".")[1:2]
    own = [f for f in found if [_kind(f)] == named]
    return [f for f in found if f in own or not _kind(f)] if own else found


def _normal(query: str) -> str:
    """A path with NAME or SPLIT for a user's own word, and a mapping that is listed elsewhere by that place."""
    path = _SPLITS.sub("data.SPLIT.", query)
    if again := _AGAIN.match(path):
        return path[again.start(1) :]
    first, _, rest = path.partition(".")
    under = _UNDER.get(first)
    if under == "NAME" and rest:
        return ".".join([first, under, *rest.split(".")[1:]])
    return f"{first}.NAME" if under == "NAME" else path
