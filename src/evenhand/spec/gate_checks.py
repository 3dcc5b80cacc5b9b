"""What a gated reward model starts from: another reward model of the experiment, whose scores it mixes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from evenhand.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from evenhand.spec.arms import Arm
    from evenhand.spec.experiment import Experiment

GATED, RATED_BY = "gated_reward_model", "attribute_reward_model"


def gate_problems(e: Experiment, arm: Arm, where: str) -> Iterator[UserError]:
    """The faults of an arm of the method GATED; other methods start from a policy."""
    mixed = [name for name, raw in e.recipes().items() if raw.get("method") == RATED_BY]
    if arm.name not in e.reward_models:
        yield UserError(f"{arm.method} trains no policy", where=f"{where}.method", fix="move it to `reward_models`")
    elif arm.initial_policy not in mixed:
        fix = (
            did_you_mean(arm.initial_policy, mixed) if mixed else f"add a reward model `{{method: {RATED_BY}, ...}}`, and name it"
        )
        yield UserError(
            f"'{arm.initial_policy}' is no {RATED_BY} of this experiment", where=f"{where}.initial_policy",
            why="a gate mixes the scores of one", fix=fix,
        )  # fmt: skip
    if arm.train.adapter is not None:
        why = "its gate is the only part that learns"
        yield UserError(f"{arm.method} has nothing to adapt", where=f"{where}.train.adapter", why=why, fix="remove it")
