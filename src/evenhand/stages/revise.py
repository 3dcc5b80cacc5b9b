"""Answers criticised by principles and revised: demonstrations, and pairs of a revision and its first answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evenhand.data.jsonl import write_groups, write_rows
from evenhand.engines.registry import for_other_models
from evenhand.errors import UserError
from evenhand.judges.chat import Chat
from evenhand.judges.config import LLM, LocalLLM, endpoint
from evenhand.models.load import load_policy
from evenhand.seeding import keyed
from evenhand.stages.common import begin, in_precision, renderer_of
from evenhand.stages.context import StageContext
from evenhand.stages.setup import Setup
from evenhand.stages.splits import read_split
from evenhand.store.pointer import model_path
from evenhand.synthesis import Principle
from evenhand.synthesis.config import Revise

KEPT = "replies.kept"
"""What the model said so far, while the stage is under way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviseSpec:
    """The section `revise`, its principles read; `by` answers in place of the input `start`."""

    KIND: ClassVar[str] = "revise"
    VERSION: ClassVar[int] = 2

    section: Revise
    principles: tuple[Principle, ...]
    by: LLM | LocalLLM | None = None
    fingerprint: str | None = None
    setup: Setup


def run(spec: ReviseSpec, context: StageContext) -> None:
    from evenhand.judges.cache import Cache, CachedChat
    from evenhand.synthesis import chat_asker, critique_and_revise, first_answers

    section, out = spec.section, context.out
    chat = CachedChat(open_chat(spec, context, begin(spec.setup.compute)), Cache(out / KEPT))
    history = []
    for prefix, count in (("", section.prompts), ("heldout_", section.heldout_prompts)):
        prompts = [g.prompt for g in read_split(context.inputs, f"{prefix}prompts")][:count]
        key, limit = keyed(context.seed, "revise", prefix), spec.setup.lengths.completion
        ask = chat_asker(chat, max_tokens=limit, temperature=section.temperature, seed=key, progress=context.report)
        answers = first_answers(prompts, ask)
        revised = critique_and_revise(answers, ask, spec.principles, rounds=section.rounds, seed=key)
        pairs = [r.pair for r in revised if r.pair is not None]
        if not prefix and not pairs:
            raise UserError("no answer was revised", where="revise", fix="use a model that follows instructions (`by:`)")
        write_groups(out / f"{prefix}revised.jsonl", [r.demonstration for r in revised])
        write_groups(out / f"{prefix}revised_pairs.jsonl", pairs)
        history += [r.to_json() for r in revised]
    write_rows(out / "revisions.jsonl", history)
    (out / KEPT).unlink(missing_ok=True)


def open_chat(spec: ReviseSpec, context: StageContext, device: str) -> Chat:
    """The model that answers, criticises and revises: the starting policy, or the one that is named."""
    from evenhand.judges.local import LocalChat

    if isinstance(spec.by, LLM):
        return endpoint(spec.by)
    compute = spec.setup.compute
    folder, name = (model_path(context.inputs["start"]), "start") if spec.by is None else (spec.by.path, spec.by.path)
    policy = in_precision(load_policy(folder, dtype=compute.dtype, device=device), compute)
    return LocalChat(policy, renderer_of(folder, spec.setup.template), name=name, engine=for_other_models(compute.sampler))
