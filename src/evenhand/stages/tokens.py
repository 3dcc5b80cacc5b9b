"""A split as token ids: rendered and tokenised once, for the reference pass and for every arm and seed that learns from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from safetensors.torch import load_file, save_file

from evenhand.data.jsonl import read_groups, write_groups
from evenhand.data.template import Renderer
from evenhand.methods import BINARY, PREFERENCES
from evenhand.stages.common import open_renderer, tokenised
from evenhand.stages.context import StageContext
from evenhand.stages.splits import groups_of
from evenhand.train.config import Lengths
from evenhand.train.examples import Example, with_pairs
from evenhand.types import Completion, Group, TokenGroup, Tokens

_T = TypeVar("_T")
_Answer = tuple[tuple[int, ...], tuple[bool, ...], bool]
_GROUPS, _TOKENS = "groups.jsonl", "tokens.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class TokensSpec:
    """A split, cut to `lengths`, as the tokenizer of the input `base` writes it; with `world`, as that built-in world's own does.
    `world_options` are the world's, whose vocabulary may depend on them.

    `form` is what a method learns from: demonstrations, preferences (rows whose answers are not all alike) or binary (labelled
    single answers). `template` is the chat template where the tokenizer brings none.
    """

    KIND: ClassVar[str] = "tokens"
    VERSION: ClassVar[int] = 1

    split: str
    form: str
    lengths: Lengths
    template: str | None = None
    supervise: str = "completion"
    world: str | None = None
    world_options: Mapping[str, Any] = field(default_factory=dict)


def run(spec: TokensSpec, context: StageContext) -> None:
    groups = groups_of(context.inputs, spec.split, binary=spec.form == BINARY)
    rows = tokenised(groups, _renderer(spec, context), spec.lengths, spec.supervise, context.report)
    write(context.out, [row for row in rows if spec.form != PREFERENCES or with_pairs(Example(tokens=row)).pairs])


def _renderer(spec: TokensSpec, context: StageContext) -> Renderer:
    if spec.world is None:
        return open_renderer(context.inputs["base"], spec.template)
    from evenhand import worlds

    return Renderer(worlds.get(spec.world, **spec.world_options).tokenizer())


def write(out: Path, rows: Sequence[TokenGroup]) -> None:
    """The groups as JSON lines; beside them flat tensors: ids, which of them count, lengths, completions per group."""
    completions = [c for row in rows for c in row.completions]
    tensors = {
        "prompt": torch.tensor([i for row in rows for i in row.prompt], dtype=torch.int32),
        "prompt_lengths": torch.tensor([len(row.prompt) for row in rows]),
        "completions": torch.tensor([len(row.completions) for row in rows]),
        "ids": torch.tensor([i for c in completions for i in c.ids], dtype=torch.int32),
        "mask": torch.tensor([m for c in completions for m in c.mask], dtype=torch.bool),
        "lengths": torch.tensor([len(c.ids) for c in completions]),
        "truncated": torch.tensor([c.truncated for c in completions], dtype=torch.bool),
    }
    save_file(tensors, out / _TOKENS)
    write_groups(out / _GROUPS, [row.group for row in rows])


def read(artifact: Path) -> list[Example]:
    """The inverse of `write`, as training examples without fields."""
    values = {name: tensor.tolist() for name, tensor in load_file(artifact / _TOKENS).items()}
    prompts = _cut(values["prompt"], values["prompt_lengths"])
    ids, masks = _cut(values["ids"], values["lengths"]), _cut(values["mask"], values["lengths"])
    answers = zip(ids, masks, values["truncated"], strict=True)
    groups = zip(read_groups(artifact / _GROUPS), prompts, values["completions"], strict=True)
    return [Example(tokens=_group(group, prompt, list(islice(answers, count)))) for group, prompt, count in groups]


def _cut(flat: Sequence[_T], lengths: Sequence[int]) -> Iterator[tuple[_T, ...]]:
    values = iter(flat)
    return (tuple(islice(values, length)) for length in lengths)


def _group(group: Group, prompt: tuple[int, ...], answers: Sequence[_Answer]) -> TokenGroup:
    pairs = zip(group.completions, answers, strict=True)
    return TokenGroup(prompt=prompt, completions=tuple(_tokens(c, *answer) for c, answer in pairs), group=group)


def _tokens(completion: Completion, ids: tuple[int, ...], mask: tuple[bool, ...], truncated: bool) -> Tokens:
    """A sampled answer, where its own tokens are learned, also has the log-probs of its sampler."""
    own, logp = (completion.tokens or ())[: len(ids)] == ids, completion.behaviour_logp
    return Tokens(ids=ids, mask=mask, behaviour_logp=logp[: len(ids)] if own and logp is not None else None, truncated=truncated)
