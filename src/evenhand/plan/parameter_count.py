"""How many weights learn in each stage that has an adapter, from the model's shape alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.errors import UserError
from evenhand.models import adapter_files, adapters

if TYPE_CHECKING:
    from evenhand.spec.arms import Arm
    from evenhand.spec.experiment import Experiment


def adapted_arms(experiment: Experiment) -> dict[str, Arm]:
    """Everything that is trained with an adapter, by its place in the file."""
    made = ((place, make()) for place, make in experiment.trainings().items())
    return {place: arm for place, arm in made if arm is not None and arm.trained and arm.train.adapter is not None}


def lines(experiment: Experiment) -> list[str]:
    """One line for each stage with an adapter; a reason in place of numbers where the model's config is not here."""
    arms = adapted_arms(experiment)
    if not arms:
        return []
    try:
        network = skeleton(config_of(experiment))
    except UserError as error:
        return [f"{name}: {arm.train.adapter} (how many weights learn is unknown: {error.what})" for name, arm in arms.items()]
    return [f"{name}: {counted(network, arm)}" for name, arm in arms.items()]


def counted(network: Any, arm: Arm) -> str:
    """An arm's adapter, and how many weights learn. Raises UserError for names that mean nothing in this model."""
    adapter = arm.train.adapter
    assert adapter is not None
    learning, total = adapters.size(network, adapter), sum(p.numel() for p in network.parameters())
    head = "" if arm.build().network == "policy" else ", and the head"
    return f"{adapter}: {learning:,} of {total:,} weights learn ({learning / total:.2%}){head}"


def skeleton(config: Any) -> Any:
    """A network of this shape without weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def config_of(experiment: Experiment) -> Any:
    """The starting model's transformers config, or that of a built-in world's own model."""
    from transformers import AutoConfig

    from evenhand import worlds
    from evenhand.models.guarded import guarded

    path = experiment.model.path
    if path is None:
        world = worlds.get(str(experiment.data.world), **experiment.data.options)
        shape = experiment.network()
        kind = shape.pop("model_type")
        return AutoConfig.for_model(kind, **{"vocab_size": len(world.tokenizer()), **shape})
    if adapter_files.is_adapter(path):
        path = adapter_files.base_of(path, experiment.model.base)
    return guarded(AutoConfig.from_pretrained, Path(path) if Path(path).expanduser().is_dir() else path)
