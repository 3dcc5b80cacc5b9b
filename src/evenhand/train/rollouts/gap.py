"""What a rollout is worth to the trainer where its sampler is not exactly the policy: measured, and kept with the metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

import torch

from evenhand.core import sampler_gap
from evenhand.core.corrections import effective_share
from evenhand.train.examples import Example
from evenhand.train.logprobs import Rows
from evenhand.types import Finish

GAP, LARGEST, BEYOND, EFFECTIVE = "sampler/gap", "sampler/gap_max", "sampler/beyond", "sampler/effective"
"""Names of the metrics; see `core.sampler_gap` and `core.corrections.effective_share`."""
CAP = 2.0
"""The weight beyond which a token counts as cut, where the method has no cap of its own (`importance`)."""
SOME_COMPLETIONS = 16


class Recomputed(StrEnum):
    """Of which sampled tokens the trainer computes log-probs of its own."""

    NOTHING = "nothing"
    """The sampler is the policy, to the rounding of float32: its log-probs are taken."""
    SOME = "some"
    """It is the policy in less than float32: its log-probs are taken, and the first of every rollout looked at again."""
    ALL = "all"
    """It holds a copy of the policy: the trainer's own log-probs are taken."""


def first_completions(examples: Sequence[Example], count: int = SOME_COMPLETIONS) -> list[Example]:
    """The first examples that have `count` completions together."""
    found, seen = [], 0
    for example in examples:
        if seen >= count:
            break
        found.append(example)
        seen += len(example.tokens.completions)
    return found


def measured(examples: Sequence[Example], own: Rows, counts: Callable[[int], bool], *, cap: float) -> dict[str, float]:
    """The gap between `own`, the trainer's log-probs, and those that the examples were sampled with, over tokens that the model
    wrote. `counts(i)` says whether a group's completion i was drawn from the policy itself at training's temperature. Empty where
    no token counts."""
    old, behaviour = [], []
    for example, rows in zip(examples, own, strict=True):
        answers = zip(example.tokens.group.completions, example.tokens.completions, rows, strict=True)
        for index, (answer, tokens, row) in enumerate(answers):
            if answer.finish is Finish.GIVEN or tokens.behaviour_logp is None or not counts(index):
                continue
            mask = torch.tensor(tokens.mask)
            old.append(row[mask])
            behaviour.append(torch.tensor(tokens.behaviour_logp)[mask])
    if not sum(len(row) for row in old):
        return {}
    pair = torch.cat(old), torch.cat(behaviour)
    return {
        GAP: float(sampler_gap.mean_gap(*pair)),
        LARGEST: float(sampler_gap.largest_gap(*pair)),
        BEYOND: float(sampler_gap.beyond(*pair, cap=cap)),
        EFFECTIVE: float(effective_share((pair[0] - pair[1]).exp())),
    }
