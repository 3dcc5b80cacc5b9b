"""Reward models that are not trained here: a folder or a hub name under `reward_models`, used as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evenhand.configfile.schema import from_signature
from evenhand.errors import UserError

KINDS: dict[str, Literal["score", "preference"]] = {"reward_model": "score", "preference_model": "preference"}
"""Method that a model was trained by -> how it serves as a reward, in the words of `Method.implied_reward`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Adopted:
    """A reward model that exists. Its scores are taken as they are unless `normalise` is set."""

    path: str
    """A folder or a Hub name of a model that exists."""
    method: Literal["reward_model", "preference_model"] = "reward_model"
    """reward_model: a classifier with one label; preference_model: a language model that names the better answer."""
    revision: str | None = None
    """Which revision of a Hub model."""
    template: str | None = None
    """Chat template of a model whose tokenizer brings none."""
    normalise: bool = False
    """Whether its scores are shifted and scaled to mean 0 and deviation 1 over the experiment's own answers."""

    @property
    def kind(self) -> Literal["score", "preference"]:
        return KINDS[self.method]


def is_adopted(raw: Mapping[str, Any]) -> bool:
    """A mapping with `path` names a model that exists; any other is a recipe for one."""
    return "path" in raw


def parse_adopted(name: str, raw: Mapping[str, Any]) -> Adopted:
    """A checked `reward_models` entry with a `path`."""
    where = f"reward_models.{name}"
    trained = [key for key in ("train", "initial_policy", "per_seed", "data", "sampling") if key in raw]
    if trained:
        raise UserError(
            f"`path` and `{trained[0]}` exclude each other",
            where=f"{where}.{trained[0]}",
            why="a model with a path is used as it is, and not trained",
            fix=f"remove `{trained[0]}`, or `path`",
        )
    found = Adopted(**from_signature(Adopted, dict(raw), where))
    if found.normalise and found.kind != "score":
        raise UserError("a preference model has no scale", where=f"{where}.normalise", fix="remove it")
    return found
