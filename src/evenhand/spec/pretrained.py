"""Reward models that are not trained here: a folder or a hub name under `reward_models`, used as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from evenhand.configfile.schema import from_signature
from evenhand.errors import UserError

Kind = Literal["score", "preference", "attributes", "gated", "general_preference"]
TrainedBy = Literal[
    "reward_model", "preference_model", "attribute_reward_model", "gated_reward_model", "general_preference_model"
]
KINDS: dict[TrainedBy, Kind] = dict(zip(get_args(TrainedBy), get_args(Kind), strict=True))
"""Method that a model was trained by -> how it serves as a reward, in the words of `Method.implied_reward`."""
COMPARING = ("preference", "general_preference")
"""Those that compare the answers of a group with each other, and have no scale."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Adopted:
    """A reward model that exists. Its scores are taken as they are unless `normalise` is set."""

    path: str
    """A folder or a Hub name of a model that exists."""
    method: TrainedBy = "reward_model"
    """reward_model: a classifier with one label; preference_model: a language model that names the better answer;
    attribute_reward_model: a classifier with a label per attribute; gated_reward_model: one with a gate, as exports have it;
    general_preference_model: one whose labels are an embedding."""
    revision: str | None = None
    """Which revision of a Hub model."""
    template: str | None = None
    """Chat template of a model whose tokenizer brings none."""
    weights: Mapping[str, float] | None = None
    """attribute_reward_model: how much each label counts, by its name in the model's config; all alike where none are given."""
    tau: float = 0.1
    """general_preference_model: what the product of two embeddings is divided by."""
    normalise: bool = False
    """Whether its scores are shifted and scaled to mean 0 and deviation 1 over the experiment's own answers."""

    @property
    def kind(self) -> Kind:
        return KINDS[self.method]

    def problems(self, where: str) -> Iterator[UserError]:
        """What is wrong with the settings by themselves."""
        if self.normalise and self.kind in COMPARING:
            yield UserError("a preference model has no scale", where=f"{where}.normalise", fix="remove it")
        if self.weights is not None and self.kind != "attributes":
            fix = "remove them, or say `method: attribute_reward_model`"
            yield UserError(f"a {self.method} has no weights", where=f"{where}.weights", fix=fix)
        if self.weights is not None and not any(self.weights.values()):
            yield UserError("every weight is 0", where=f"{where}.weights", fix="give at least one attribute a weight")
        if self.tau != 0.1 and self.kind != "general_preference":
            fix = "remove it, or say `method: general_preference_model`"
            yield UserError(f"a {self.method} has no tau", where=f"{where}.tau", fix=fix)
        if self.tau <= 0:
            yield UserError(f"a tau of {self.tau:g}", where=f"{where}.tau", fix="use a number above 0, as in its training")


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
    for problem in found.problems(where):
        raise problem
    return found
