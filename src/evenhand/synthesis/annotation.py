"""Preference labels by any judge (RLAIF), and labels made worse on purpose."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from evenhand.data.convert import SOFT
from evenhand.judges import Judge, Verdict
from evenhand.seeding import keyed, rng
from evenhand.synthesis.comparison import Choose, ComparedAnswers, Pair, Progress, ask, by_judge
from evenhand.types import Group
from evenhand.worlds.labels import Annotator

_UNIT = 2.0**63
Labels = Literal["hard", "soft", "drawn"]
"""How a chance p becomes a label: the likelier answer scores 1; (p, 1 - p); or 1 for an answer drawn with chance p."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedPairs:
    """`pairs` in the order of their prompts; `left_out` counts what gave none, by reason; `verdicts` of a judge of pairs."""

    pairs: tuple[Group, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()


def label(
    groups: Sequence[Group], judge: Judge, *, choose: Choose = "random", labels: Labels = "hard", margin: float = 0.0,
    annotator: Annotator | None = None, seed: int = 0, progress: Progress | None = None,
) -> AnnotatedPairs:  # fmt: skip
    """Preference pairs from the different answers of each group, by what `judge` says of them.

    With p the chance that the first answer is preferred (a judge's mean over both orders; for a reward
    `sigmoid((r_1 - r_2) / temperature)` of `annotator`, temperature 1 unless given), scores are as `labels` says, and
    `parts["judge"]` keeps (p, 1 - p). `best_worst` takes the answers with the highest and the lowest reward or Borda score of
    each group. Left out: pairs whose difference is at most `margin` (at 0, ties), and those that could not be judged; the
    difference is that of the rewards, or |2p - 1| for a judge of pairs.
    Sources: Lee et al. 2023, RLAIF, section 3.1 (both orders averaged, soft labels); Dong et al. 2024, RLHF Workflow, section 3
    (best and worst of n); Bansal et al. 2023 (small margins are noise).
    """
    annotator = annotator or Annotator(temperature=1.0)
    asked = [ask(g, choose, keyed(seed, "label", place)) for place, g in enumerate(groups)]
    left_out: Counter[str] = Counter()
    pairs = []
    compared = by_judge(asked, judge, annotator, progress)
    for place, found in enumerate(compared):
        left_out["without two different answers"] += len(found.group.completions) < 2
        left_out["without a readable verdict"] += found.unread
        wanted = _chosen(found, choose)
        left_out["tied"] += choose == "best_worst" and bool(found.chance) and not wanted
        for pair in wanted:
            if abs(found.gap[pair]) <= margin:
                left_out["tied" if found.gap[pair] == 0 else "within the margin"] += 1
            else:
                pairs.append(_labelled(found, pair, labels, keyed(seed, "draw", place, *pair)))
    verdicts = tuple(v for found in compared for v in found.verdicts)
    return AnnotatedPairs(pairs=tuple(pairs), left_out={k: n for k, n in left_out.items() if n}, verdicts=verdicts)


def _chosen(found: ComparedAnswers, choose: Choose) -> list[Pair]:
    """The compared pairs that are wanted; none where no answer is better than another."""
    if choose != "best_worst":
        return list(found.chance)
    scored = [i for i, v in enumerate(found.value) if not math.isnan(v)]
    best, worst = max(scored, key=lambda i: found.value[i], default=0), min(scored, key=lambda i: found.value[i], default=0)
    pair = (min(best, worst), max(best, worst))
    return [pair] if pair in found.chance and found.value[best] > found.value[worst] else []


def _labelled(found: ComparedAnswers, pair: Pair, labels: Labels, key: int) -> Group:
    i, j = pair
    p = found.chance[pair]
    if labels == "drawn":
        first = float(rng(key, found.group.prompt.id).random() < p)
    else:
        first = p if labels == "soft" else float(found.gap[pair] > 0)
    parts = {"judge": (p, 1 - p), "value": (found.value[i], found.value[j])}
    return Group(
        prompt=found.group.prompt,
        completions=(found.group.completions[i], found.group.completions[j]),
        scores=(first, 1 - first),
        parts=parts | ({SOFT: (p, 1 - p)} if labels == "soft" else {}),
    )


def flip_labels(groups: Sequence[Group], share: float, *, seed: int) -> list[Group]:
    """The scores of each pair swapped with probability `share`, by its prompt and place alone; other groups stay.

    For studies of label noise: a larger `share` flips the same pairs and more. `parts["flipped"]` says which.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"{share} is not a share")
    out = []
    for place, group in enumerate(groups):
        flip = len(group.completions) == 2 and keyed(seed, "flip", group.prompt.id, place) / _UNIT < share
        parts = {**group.parts, "flipped": (float(flip),) * len(group.completions)}
        if flip and SOFT in parts:
            parts[SOFT] = parts[SOFT][::-1]
        out.append(replace(group, scores=group.scores[::-1] if flip else group.scores, parts=parts))
    return out
