"""Several sources as one: shares by size, weight or temperature, with caps; the same mixture for the same seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evenhand.data.convert import shuffled
from evenhand.errors import UserError
from evenhand.types import Group

SOURCE, OWN = "dataset", "own_dataset"
"""The meta field in which each group keeps the name of its part, and the one to which a column of that name moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixPart:
    """One source of a mixture. `weight` replaces its size when shares are computed; `cap` limits its distinct groups."""

    name: str
    groups: Sequence[Group]
    weight: float | None = None
    cap: int | None = None

    @property
    def available(self) -> int:
        return len(self.groups) if self.cap is None else min(self.cap, len(self.groups))


def shares(parts: Sequence[MixPart], temperature: float = 1.0) -> list[float]:
    """The share of each part: m_i^(1/T) / sum_j m_j^(1/T), m = weight, else the number of available groups.

    T = 1 keeps the proportions, T -> infinity makes all parts equal. Source: Raffel et al. 2020 (T5), section 3.5.2.

    >>> two = [MixPart(name="a", groups=[], weight=9.0), MixPart(name="b", groups=[], weight=1.0)]
    >>> shares(two), shares(two, temperature=2.0)
    ([0.9, 0.1], [0.75, 0.25])
    """
    if not temperature > 0:
        raise UserError(f"a temperature of {temperature}", where="mix.temperature", fix="use a number above 0")
    masses = [p.available if p.weight is None else p.weight for p in parts]
    if any(m < 0 for m in masses) or not any(masses):
        raise UserError("the weights of a mixture must be positive", where="mix", why=f"they are {masses}")
    try:
        raised = [m ** (1 / temperature) for m in masses]
    except OverflowError:
        raised = [math.inf]
    if not 0 < sum(raised) < math.inf:
        fix = "use 0.1 or more, or name the largest part alone"
        raise UserError(f"a temperature of {temperature} leaves one part alone", where="mix.temperature", fix=fix)
    return [r / sum(raised) for r in raised]


def counts(parts: Sequence[MixPart], *, size: int | None = None, temperature: float = 1.0) -> list[int]:
    """How many groups each part gives: its share of `size`, rounded so that they add up (largest remainders first).

    Without a size, the largest mixture with these shares in which no group comes twice. Raises UserError when a part
    has fewer groups than its share of `size` asks for.
    """
    part_shares = shares(parts, temperature)
    if size is None:
        size = min(math.floor(p.available / s * (1 + 1e-12)) for p, s in zip(parts, part_shares, strict=True) if s > 0)
    exact = [size * s for s in part_shares]
    found = [math.floor(e * (1 + 1e-12)) for e in exact]
    by_remainder = sorted(range(len(parts)), key=lambda i: found[i] - exact[i])
    for i in by_remainder[: size - sum(found)]:
        found[i] += 1
    for part, wanted in zip(parts, found, strict=True):
        if wanted > part.available:
            raise UserError(
                f"'{part.name}' has {part.available} groups, but its share of {size} is {wanted}",
                where="mix",
                why="rows would come more than once",
                fix="lower size or its weight, raise its cap, or leave size out",
            )
    return found


def mix(parts: Sequence[MixPart], *, seed: int, size: int | None = None, temperature: float = 1.0) -> list[Group]:
    """The mixture in a fixed random order; which groups of a part are taken depends on the seed and their prompts alone."""
    if not parts:
        raise UserError("a mixture of nothing", where="mix", fix="name at least one source")
    names = [p.name for p in parts]
    if len(set(names)) != len(names):
        raise UserError(f"two parts have one name: {', '.join(sorted(names))}", where="mix", fix="give each its own name")
    taken = [
        _named(group, part.name)
        for part, count in zip(parts, counts(parts, size=size, temperature=temperature), strict=True)
        for group in shuffled(part.groups, seed)[:count]
    ]
    return shuffled(taken, seed)


def _named(group: Group, name: str) -> Group:
    given = group.prompt.meta
    own = {OWN: given[SOURCE]} if SOURCE in given else {}
    return replace(group, prompt=replace(group.prompt, meta={**own, **given, SOURCE: name}))
