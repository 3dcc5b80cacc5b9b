"""A reward model that was trained elsewhere: found, opened once, compared with transformers, and pointed at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from evenhand.errors import UserError
from evenhand.models.artifacts import NORMALISATION_FILE
from evenhand.rewards.external import TextReward, check_against_transformers
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
    kind: Literal["score", "preference"]
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
    write_json(out / REWARD, {"kind": spec.kind, "reads": reading(folder), "template": spec.own_template, "foreign": foreign})
    reward = open_model_reward(out, spec.setup, device)
    if isinstance(reward, TextReward) and spec.kind == "score":
        check_against_transformers(reward, probe(chat=bool(renderer.tokenizer.chat_template)))
    if spec.normalise:
        context.report(0, NORMALISED)
        groups = answered(inputs)[:NORMALISED]
        Normalisation.fit([v for s in reward(groups) for v in s.values]).save(out)


def reading(folder: Path) -> str:
    """Where the model reads an answer's score: "tokens", at the answer's last token, where it was trained here; else "text", at
    the end of the whole rendered conversation. The policy's tokenizer changes nothing: one model has one place."""
    return "tokens" if (folder / NORMALISATION_FILE).exists() else "text"


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
