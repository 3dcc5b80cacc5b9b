"""A reward model that was trained elsewhere: found, opened once, compared with transformers, and pointed at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from evenhand.errors import UserError, did_you_mean
from evenhand.models.artifacts import EXPORT_RECORD, NORMALISATION_FILE
from evenhand.protocols import TrainedReward
from evenhand.rewards.attributes import AttributeReward
from evenhand.rewards.external import TextReward, check_against_transformers
from evenhand.rewards.general_preference import GeneralPreferenceReward
from evenhand.rewards.model import Normalisation
from evenhand.stages import base
from evenhand.stages.base import ModelSource
from evenhand.stages.common import REWARD, begin, open_model_reward, open_renderer
from evenhand.stages.context import StageContext
from evenhand.stages.setup import Setup
from evenhand.stages.splits import read_split
from evenhand.store.whole import write_json
from evenhand.types import Completion, Finish, Group, Message, Prompt

NORMALISED = 500
"""Groups a scale is taken from."""
PROBES = ("The moon is far away, about 384,400 km.", "Yes.")


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedRewardModelSpec:
    """`model` as a reward of this `kind`, beside the input `start`; see `spec.pretrained.Adopted`."""

    KIND: ClassVar[str] = "pretrained_reward_model"
    VERSION: ClassVar[int] = 2

    model: ModelSource
    kind: Literal["score", "preference", "attributes", "gated", "general_preference"]
    weights: Mapping[str, float] | None = None
    tau: float = 0.1
    own_template: str | None = None
    normalise: bool = False
    setup: Setup


def run(spec: PretrainedRewardModelSpec, context: StageContext) -> None:
    device, out, inputs = begin(spec.setup.compute), context.out, context.inputs
    folder = spec.model.folder("reward_models")
    base.settle(folder, out, spec.model)
    renderer = open_renderer(out, spec.own_template)
    policy = open_renderer(inputs["start"], spec.setup.template)
    foreign = renderer.fingerprint != policy.fingerprint
    how = {"kind": spec.kind, "reads": reading(folder), "template": spec.own_template, "foreign": foreign}
    write_json(out / REWARD, {**how, **scored_how(spec, folder)})
    reward = open_model_reward(out, spec.setup, device)
    if isinstance(model := network_of(reward), TextReward):
        check_against_transformers(model, probe(chat=bool(renderer.tokenizer.chat_template)))
    if spec.normalise:
        context.report(0, NORMALISED)
        groups = answered(inputs)[:NORMALISED]
        Normalisation.fit([v for s in reward(groups) for v in s.values]).save(out)


def scored_how(spec: PretrainedRewardModelSpec, folder: Path) -> dict[str, Any]:
    """What its kind is told beside the model: see `rewards.served`."""
    if spec.kind == "general_preference":
        if len(names := labels(folder)) % 2 or not names:
            fix = "use a model whose labels are the embedding of a general preference model"
            raise UserError(f"an embedding of {len(names)} numbers", where=str(folder), why="its product needs pairs", fix=fix)
        return {"tau": spec.tau}
    if spec.kind != "attributes":
        return {}
    names = labels(folder)
    if unknown := [name for name in spec.weights or {} if name not in names]:
        raise UserError(f"no label is called '{unknown[0]}'", where="weights", fix=did_you_mean(unknown[0], names))
    given = spec.weights
    return {"weights": {name: 1 / len(names) if given is None else float(given.get(name, 0.0)) for name in names}}


def labels(folder: Path) -> tuple[str, ...]:
    """The labels that the model's config names, in their order."""
    from transformers import AutoConfig

    from evenhand.models.guarded import guarded

    named: Mapping[Any, str] = guarded(AutoConfig.from_pretrained, folder).id2label
    return tuple(str(named[n]) for n in sorted(named))


def network_of(reward: TrainedReward) -> TrainedReward:
    """The model inside a reward that reads several of its outputs."""
    if isinstance(reward, AttributeReward):
        return reward.model
    return reward.judge.model if isinstance(reward, GeneralPreferenceReward) else reward


def reading(folder: Path) -> str:
    """Where the model reads an answer's score: "tokens", at the answer's last token, where it was trained here; else "text", at
    the end of the whole rendered conversation. The policy's tokenizer changes nothing: one model has one place."""
    left = (folder / NORMALISATION_FILE, folder / EXPORT_RECORD, folder.parent / REWARD)
    return "tokens" if any(path.exists() for path in left) else "text"


def probe(*, chat: bool) -> Group:
    """A question with two answers, to try a model on."""
    asked = "How far is the moon?"
    answers = tuple(Completion(content=text if chat else " " + text, finish=Finish.STOP) for text in PROBES)
    return Group(prompt=Prompt(content=(Message("user", asked),) if chat else asked), completions=answers)


def answered(inputs: Mapping[str, Path]) -> list[Group]:
    """Rows with answers: preferences, else demonstrations."""
    for split in ("preferences", "demonstrations"):
        source = inputs["preferences"] if split == "preferences" and "preferences" in inputs else inputs["data"]
        if (source / f"{split}.jsonl").exists():
            return read_split(inputs, split)
    raise UserError("the data have no answers to take a scale from", where="reward_models", fix="remove `normalise: true`")
