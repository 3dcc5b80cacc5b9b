"""Rewards by the names an experiment gives them, resolved and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evenhand import rewards, worlds
from evenhand.errors import UserError
from evenhand.registry import parts
from evenhand.rewards.judged import CRITERION, settings_of
from evenhand.rewards.process import ProcessReward
from evenhand.rewards.registry import REWARDS
from evenhand.rewards.tournament import Tournament
from evenhand.spec.experiment import Experiment
from evenhand.spec.pretrained import COMPARING, KINDS


def resolved_reward(reward: Any, experiment: Experiment) -> Any:
    """A reward with the experiment's own names replaced by what they stand for, at any depth; None stays None."""
    if isinstance(reward, str):
        if reward in experiment.rewards:
            return resolved_reward(experiment.rewards[reward], experiment)
        if reward in experiment.reward_models:
            return {"kind": "model", "name": reward}
        return {"kind": reward} | ({"world": experiment.data.world, **experiment.data.options} if reward == "gold" else {})
    if isinstance(reward, Mapping):
        nested = {"reward": resolved_reward, "parts": _resolved_list, "members": _resolved_list}
        return {k: nested[k](v, experiment) if k in nested else v for k, v in reward.items()}
    return reward


def _resolved_list(rewards: Any, experiment: Experiment) -> Any:
    return [resolved_reward(r, experiment) for r in rewards] if isinstance(rewards, list | tuple) else rewards


def specs_in(reward: Any) -> Iterator[Mapping[str, Any]]:
    """A resolved reward and every reward inside it, in the order in which they stand there; also those inside a whole spec."""
    return (part for _, part in parts(reward) if isinstance(part, Mapping) and "kind" in part)


def models_in(reward: Any) -> set[str]:
    """Names of the trained reward models inside a resolved reward."""
    return {r["name"] for r in specs_in(reward) if r["kind"] == "model" and "name" in r}


def kind_in(reward: Any, kind: str) -> bool:
    """Whether a resolved reward is of that kind, or is made of one that is."""
    return any(r["kind"] == kind for r in specs_in(reward))


def graded_in(reward: Any) -> str | None:
    """The kind that is known to make a resolved reward more than 1 (right) and 0 (wrong); None where it may be these two."""
    if not isinstance(reward, Mapping):
        return None
    kind = str(reward.get("kind"))
    if kind in ("tagged", "unfinished"):
        return graded_in(reward.get("reward"))
    if kind != "gold":
        return kind if kind in REWARDS.facts("graded") else None
    world, options = reward.get("world"), {key: v for key, v in reward.items() if key not in ("kind", "world")}
    if world is None or any(world_problem(world, options)):
        return None
    return f"{world}'s gold" if getattr(worlds.get(world, **options).gold, "graded", False) else None


def functions_in(reward: Any) -> list[str]:
    """Paths of the user's functions inside a resolved reward, in the order in which they stand there."""
    return [str(r["path"]) for r in specs_in(reward) if r["kind"] == "function" and "path" in r]


def judges_in(reward: Any) -> set[tuple[str, str]]:
    """(path, template) of the judging models that resolved rewards of the kinds `judge` and `rubric` ask; "" of an endpoint."""
    asking = [r for r in specs_in(reward) if r["kind"] in ("judge", "rubric") and r.get("judge")]
    asked = [(settings_of(r["judge"], where="judge"), r["kind"]) for r in asking]
    return {(getattr(s, "path", ""), s.template if kind == "judge" else CRITERION) for s, kind in asked}


def world_problem(world: str | None, options: Mapping[str, Any]) -> Iterator[UserError]:
    """The fault of a world or of its options, if there is one."""
    if world is None:
        if options:
            yield UserError("`options` are a built-in world's", where="data.options", fix="name `data.world`, or remove them")
        return
    try:
        worlds.get(world, **options)
    except (UserError, TypeError) as error:
        yield UserError(error.what if isinstance(error, UserError) else str(error), where="data", fix=getattr(error, "fix", ""))


def reward_problem(reward: Any, experiment: Experiment, where: str) -> Iterator[UserError]:
    """The fault of a reward, if it has one: built once with stand-ins for the models that are not trained yet."""
    if reward == "gold" and any(world_problem(experiment.data.world, experiment.data.options)):
        return  # told where the world is named
    if reward == "gold" and experiment.data.world is None:
        yield UserError("`gold` is the reward of a built-in world", where=where, fix="name `data.world`, or another reward")
        return
    stand_ins = {name: _stand_in(raw) for name, raw in experiment.reward_models.items()}
    try:
        rewards.get(resolved_reward(reward, experiment), stand_ins, where=where)
    except UserError as error:
        inside = error.where.startswith(where)
        what = error.what if inside or not error.where else f"{error.where}: {error.what}"
        yield error if inside else UserError(what, where=where, why=error.why, fix=error.fix)


def _stand_in(raw: Mapping[str, Any]) -> Any:
    """Something of the kind that a reward model will be: only a preference model takes a tournament's rule, and only
    one of steps a way to join them."""
    nobody: Any = lambda pairs: []  # noqa: E731
    if raw.get("method") == "process_reward_model":
        return ProcessReward(nobody)
    return Tournament(nobody) if KINDS.get(raw.get("method", "")) in COMPARING else lambda groups: []
