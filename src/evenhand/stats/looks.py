"""Looking more than once: what a study may still err after it was looked at unfinished, or enlarged afterwards.

A plan of K seeds and N prompts spends its error as it goes (Lan and DeMets, Biometrika 70 (1983) 659): at a share tau of the
planned cells alpha(tau) = 2 - 2 Phi(z_{1 - alpha/2} / sqrt(tau)) may have been spent (O'Brien and Fleming's form), and a look has
what is new. Levels add up (a union bound), so the error over all looks stays below alpha whatever the looks have in common: seeds
and prompts do not grow as the usual independent increments.

Without a plan, or beyond it, look j has alpha / (j (j + 1)), which adds up over any number of looks. Since the first look had all
of alpha, the total is then more, and `spent` says how much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtr, ndtri

from evenhand.errors import UserError

Design = tuple[int, int]
"""(seeds, prompts) that a look saw."""


@dataclass(frozen=True, slots=True)
class Look:
    """The newest of `count` looks: `alpha` is its own level, `spent` what all looks together may err; `planned` how many cells.

    `note` is empty where one look was taken at what was planned.
    """

    count: int
    alpha: float
    spent: float
    note: str


def spending(share: float, alpha: float = 0.05) -> float:
    """What may have been spent at a share of the plan: 2 - 2 Phi(z_{1 - alpha/2} / sqrt(share)); 0 at 0, alpha at 1 and beyond.

    >>> [round(spending(s), 4) for s in (0.25, 0.5, 1.0, 2.0)]
    [0.0001, 0.0056, 0.05, 0.05]
    """
    if share <= 0.0:
        return 0.0
    return alpha if share >= 1.0 else float(2 * ndtr(-ndtri(1 - alpha / 2) / math.sqrt(share)))


def look(designs: Sequence[Design], planned: Design | None = None, alpha: float = 0.05) -> Look:
    """What the last of `designs` may err, given the earlier ones in order; a design that was seen before is no new look.

    `planned`: (seeds, prompts) declared before looking. One look without a plan, or one at the plan, has all of alpha.

    >>> look([(3, 128)]).alpha, look([(3, 128), (5, 128)]).note
    (0.05, 'looked at 2 times, planned 1: over all looks a false verdict is up to 5.8 % likely, not 5 %')
    >>> [round(look([(2, 100), (5, 100)][:j], (5, 100)).alpha, 4) for j in (1, 2)]
    [0.0019, 0.0481]
    """
    seen = list(dict.fromkeys(designs))
    if not seen:
        raise UserError("nothing was looked at", where="looks")
    levels = _levels(seen, planned, alpha)
    count = len(seen) if designs[-1] == seen[-1] else seen.index(designs[-1]) + 1
    spent = math.fsum(levels)
    return Look(count=len(seen), alpha=levels[count - 1], spent=spent, note=_note(seen, planned, levels, alpha))


def _levels(seen: Sequence[Design], planned: Design | None, alpha: float) -> list[float]:
    levels: list[float] = []
    spent, full = 0.0, False
    for j, design in enumerate(seen, start=1):
        if full:
            levels.append(alpha / (j * (j + 1)))
            continue
        share = 1.0 if planned is None else min(design[0] / planned[0], 1.0) * min(design[1] / planned[1], 1.0)
        may = spending(share, alpha)
        levels.append(max(may - spent, 0.0))
        spent, full = max(spent, may), share >= 1.0
    return levels


def _note(seen: Sequence[Design], planned: Design | None, levels: Sequence[float], alpha: float) -> str:
    total, count = math.fsum(levels), len(seen)
    times = "once" if count == 1 else f"{count} times"
    if total > alpha + 1e-12:
        before = "planned 1" if planned is None else f"beyond the plan of {planned[0]} seeds and {planned[1]} prompts"
        risk = f"over all looks a false verdict is up to {100 * total:.1f} % likely, not {100 * alpha:g} %"
        return f"looked at {times}, {before}: {risk}"
    if planned is not None and (count > 1 or levels[-1] < alpha):
        may = f"this look may err {_percent(levels[-1])}, all so far {_percent(total)}"
        return f"looked at {times}, planned {planned[0]} seeds and {planned[1]} prompts: {may}"
    return ""


def _percent(share: float) -> str:
    """
    >>> _percent(0.0019), _percent(2e-106)
    ('0.19 %', 'next to nothing')
    """
    return f"{100 * share:.2g} %" if share >= 1e-5 else "next to nothing"
