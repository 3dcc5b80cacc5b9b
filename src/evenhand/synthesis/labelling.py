"""Preference labels by a judge (RLAIF), and labels made worse on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evenhand.judges import Comparison, Judge
from evenhand.seeding import keyed, rng
from evenhand.types import Group

_UNIT = 2.0**63


def label(groups: Sequence[Group], judge: Judge, *, soft: bool = False, margin: float = 0.0, seed: int = 0) -> list[Group]:
    """One pair per prompt, two of its different answers at random, scored by `judge` in both orders.

    With p the judge's outcome for the first answer: scores (p, 1 - p) when `soft`, else (1, 0) or (0, 1). `parts["judge"]`
    keeps (p, 1 - p) in either case. Left out: pairs with |2p - 1| <= `margin` (at 0, ties), and those without a readable verdict.
    Source: Lee et al. 2023, RLAIF, section 3.1 (both orders averaged, soft labels).
    """
    pairs = [pair for place, g in enumerate(groups) if (pair := _two(g, keyed(seed, "label", place))) is not None]
    verdicts = judge([Comparison(prompt=p.prompt, a=p.completions[0], b=p.completions[1]) for p in pairs])
    out = []
    for pair, verdict in zip(pairs, verdicts, strict=True):
        p = verdict.outcome
        if verdict.invalid or abs(2 * p - 1) <= margin:
            continue
        scores = (p, 1 - p) if soft else (float(p > 0.5), float(p < 0.5))
        out.append(replace(pair, scores=scores, parts={"judge": (p, 1 - p)}))
    return out


def flip_labels(groups: Sequence[Group], share: float, *, seed: int) -> list[Group]:
    """The scores of each pair swapped with probability `share`, by its prompt and place alone; other groups stay.

    For studies of label noise: a larger `share` flips the same pairs and more. `parts["flipped"]` says which.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"{share} is not a share")
    out = []
    for place, group in enumerate(groups):
        flip = len(group.completions) == 2 and keyed(seed, "flip", group.prompt.id, place) / _UNIT < share
        scores = group.scores[::-1] if flip else group.scores
        out.append(replace(group, scores=scores, parts={**group.parts, "flipped": (float(flip),) * len(group.completions)}))
    return out


def _two(group: Group, key: int) -> Group | None:
    different = list({c.text: c for c in reversed(group.completions)}.values())
    if len(different) < 2:
        return None
    first, second = rng(key, group.prompt.id).choice(len(different), 2, replace=False)
    return Group(prompt=group.prompt, completions=(different[first], different[second]))
