"""Which reward an arm was trained on: its mean on held-out answers, and whether the judge is that same score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evenhand.spec.judge import ScoringJudge
from evenhand.spec.reward_resolution import functions_in, models_in, resolved_reward, specs_in

if TYPE_CHECKING:
    from evenhand.spec.experiment import Experiment


def own_reward(experiment: Experiment, arm: str, proxies: Mapping[str, float | None], gold: float | None) -> float | None:
    """The arm's own training reward on its held-out answers, where a reward model or the judge is that reward.

    None for an arm without a reward (it learned from data), and for a reward that was not measured on these answers.
    """
    reward = resolved_reward(experiment.arm(arm).reward, experiment)
    if reward is None:
        return None
    if reward.get("kind") == "model" and reward.get("name") in proxies:
        return proxies[reward["name"]]
    judge = experiment.judge
    return gold if isinstance(judge, ScoringJudge) and resolved_reward(judge.reward, experiment) == reward else None


def trained_on_judge(experiment: Experiment) -> tuple[str, ...]:
    """Arms whose training reward is the judge's score, or that of a judge of the jury, or has a part in common with it."""
    scoring = [
        resolved_reward(judge.reward, experiment) for judge in experiment.judges().values() if isinstance(judge, ScoringJudge)
    ]
    rewards = {name: resolved_reward(arm.reward, experiment) for name, arm in experiment.all_arms().items()}
    shared = lambda reward: any(_in_common(reward, judge) for judge in scoring)  # noqa: E731
    return tuple(name for name, reward in rewards.items() if reward is not None and shared(reward))


def _in_common(a: Any, b: Any) -> bool:
    named = models_in(a) & models_in(b) or set(functions_in(a)) & set(functions_in(b))
    return bool(named) or b in specs_in(a) or a in specs_in(b)
