"""What a rollout shows of itself, and the check that its rewards are numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evenhand.core.credit import FLAT
from evenhand.errors import UserError
from evenhand.train.examples import Example
from evenhand.train.rollouts.kl import completion_kl
from evenhand.train.rollouts.shaping import spread
from evenhand.types import Completion, Finish, Group, Scores

OF_REWARDS = ("reward", "flat", "watched/unscored")
"""What says nothing where nothing is rewarded."""


def summary(groups: Sequence[Group], examples: Sequence[Example]) -> dict[str, float]:
    """Plain means over completions: the reward over all, the rest over those that were sampled and not the data's own."""
    completions = [c for g in groups for c in g.completions]
    sampled = [n for n, c in enumerate(completions) if c.tokens is not None]
    own, logps = [completions[n] for n in sampled], [row for e in examples for row in e.per_token["old_logp"]]
    scores = [s for g in groups for s in g.scores if s == s]
    tokens, count = sum(c.written for c in own), max(1, len(own))
    out = {
        "reward": sum(scores) / max(1, len(scores)),
        "length": tokens / count,
        "truncated": sum(c.finish is Finish.LENGTH for c in own) / count,
        "entropy": -sum(float(logps[n].sum()) for n in sampled) / max(1, tokens),
        "flat": sum(spread(g) <= FLAT for g in groups) / len(groups),
    }
    if "ref_logp" in examples[0].per_token:
        divergence = [value for e in examples for value in completion_kl(e)]
        out["kl"] = sum(divergence[n] for n in sampled) / count
    out |= of_turns(own)
    for name in dict.fromkeys(name for g in groups for name in g.parts):
        values = [v for g in groups for v in g.parts.get(name, ()) if v == v]
        out[f"reward/{name}"] = sum(values) / max(1, len(values))
    return out


def of_turns(completions: Sequence[Completion]) -> dict[str, float]:
    """Of answers in an environment: the model's turns, tokens that it did not write, and how many answers their environment
    failed."""
    if not any(c.turns for c in completions):
        return {}
    count = len(completions)
    return {
        "turns": sum(turn.written for c in completions for turn in c.turns) / count,
        "environment_tokens": sum(len(c.mask) - c.written for c in completions) / count,
        "environment_failed": float(sum(bool(c.failed) for c in completions)),
    }


def watched(groups: Sequence[Group]) -> dict[str, float]:
    """For the monitor alone: shares of the completions that repeat an earlier one of their group, and that have no score."""
    count = sum(len(g.completions) for g in groups)
    different = sum(len({c.tokens or c.text for c in g.completions}) for g in groups)
    unscored = sum(s != s for g in groups for s in g.scores)
    return {"watched/duplicates": 1 - different / count, "watched/unscored": unscored / count}


def checked(groups: Sequence[Group], scores: Sequence[Scores]) -> Sequence[Scores]:
    """The scores, none of them infinite. NaN is an answer that could not be scored, and counts nowhere; UserError when that is
    every answer of a step, from which nothing can be learned."""
    if scores and all(math.isnan(v) for found in scores for v in found.values):
        lost = [c.failed for g in groups for c in g.completions if c.failed]
        raise UserError(
            f"not one of {sum(len(g.completions) for g in groups)} answers could be scored: every reward is NaN",
            where=f"prompt {groups[0].prompt.id} and {len(groups) - 1} more",
            why=f"the environment failed in {len(lost)} of them: {lost[0]}" if lost else "a step without a score changes nothing",
            fix="check what the reward returns, and that the prompts have the fields it needs; `evenhand score` tries it alone",
        )  # fmt: skip
    for group, found in zip(groups, scores, strict=True):
        for completion, value in zip(group.completions, found.values, strict=True):
            if math.isinf(value):
                raise UserError(
                    f"the reward is {value}", where=f"prompt {group.prompt.id}, answer {completion.text[:60]!r}",
                    why="one infinite reward makes every advantage of its group, and so the weights, not a number",
                    fix="return a large finite number, or None (not scored) for an answer that the reward cannot judge",
                )  # fmt: skip
    return scores
