"""What training a reward model has that no other training has: its head, what is taken off its scores, their scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from evenhand.core.attributes import least_penalties
from evenhand.errors import UserError, did_you_mean
from evenhand.methods import Method
from evenhand.models.gate import GatedRewardModel
from evenhand.models.heads import RewardModel
from evenhand.models.load import load_reward_model, reward_model_from
from evenhand.rewards.model import ModelReward, Normalisation
from evenhand.rewards.served import HAS_A_SCALE, served
from evenhand.stages import offline
from evenhand.stages.setup import Compute
from evenhand.stages.training_run import TrainingRun
from evenhand.types import Group

READ = 500
"""Groups that a reward model's scale, or what is taken off its scores, is read off."""


def opened(start: Path, method: Method, compute: Compute, seed: int, device: str) -> RewardModel:
    """A new head on the trunk of the start; or a start that is a reward model already, with a new gate."""
    if method.gate is None:
        return reward_model_from(
            start, seed=seed, dtype=compute.dtype, device=device, outputs=method.outputs, power=method.head_power
        )
    plain = load_reward_model(start, dtype=compute.dtype, device=device, labels=None)
    made = GatedRewardModel(plain.hf, method.gate, seed)
    if (named := method.gate.debias) and named not in made.names:
        fix = f"{did_you_mean(named, made.names)}; or take nothing off: `debias: ''`"
        raise UserError(f"the reward model has no attribute '{named}'", where="debias", fix=fix)
    return made


def debias(run: TrainingRun, model: GatedRewardModel) -> None:
    """Settle how much of one attribute is taken off the others, by the scores of answers that are trained on."""
    settings = model.settings
    if not settings.debias:
        return
    # whole, and spread again afterwards: a pass without a backward one leaves the gate gathered on every rank, and an optimizer
    # made then would hold weights that no gradient reaches
    with run.ledger.passes("debias"), run.ranks.whole(model):
        reward = model_reward(run, model)
        rows = [row for group in reward.outputs([reward.tokens(g) for g in read_off(run)]) for row in group]
    scores = torch.tensor(rows, dtype=torch.float64)
    model.set_penalty(least_penalties(scores, model.names.index(settings.debias), limit=settings.correlation))


def normalise(run: TrainingRun, model: RewardModel, how: Mapping[str, Any], folder: Path) -> None:
    """Store the shift and scale that give this reward model mean 0 and deviation 1 over answers it was trained on.

    Chances, of a step or of a pair, have a scale of their own.
    """
    if how["kind"] not in HAS_A_SCALE:
        return
    reward = served(how, model_reward(run, model))
    Normalisation.fit([v for s in reward(read_off(run)) for v in s.values]).save(folder)


def read_off(run: TrainingRun) -> list[Group]:
    """The first rows that the model learns from."""
    return offline.learned_from(run.spec, run.inputs, run.method)[:READ]


def model_reward(run: TrainingRun, model: RewardModel) -> ModelReward:
    """The model on rows of this run."""
    lengths = run.spec.setup.lengths
    return ModelReward(
        model, run.renderer, max_prompt=lengths.prompt, max_completion=lengths.completion,
        tokens_per_microbatch=run.spec.train.tokens_per_microbatch,
    )  # fmt: skip
