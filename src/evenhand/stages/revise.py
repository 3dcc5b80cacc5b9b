"""Answers criticised by principles and revised: demonstrations, and pairs of a revision and its first answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.data.jsonl import write_groups, write_rows
from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.models.load import load_policy, load_tokenizer
from evenhand.seeding import keyed
from evenhand.stages.common import model_path, read_split, setup

if TYPE_CHECKING:
    from evenhand.judges.chat import Chat

KEPT = "replies.kept"
"""What the model said so far, while the stage is under way."""


def run(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], out: Path, report: Callable[..., None]) -> None:
    from evenhand.judges.cache import Cache, CachedChat
    from evenhand.synthesis import Principle, chat_asker, critique_and_revise, first_answers

    chat = CachedChat(open_chat(spec, inputs, setup(spec)), Cache(out / KEPT))
    chosen = [Principle(**p) for p in spec["principles"]]
    history = []
    for prefix, count in (("", spec["prompts"]), ("heldout_", spec["heldout_prompts"])):
        prompts = [g.prompt for g in read_split(inputs, f"{prefix}prompts")][:count]
        key = keyed(seed, "revise", prefix)
        ask = chat_asker(
            chat, max_tokens=spec["lengths"]["completion"], temperature=spec["temperature"], seed=key, progress=report
        )
        revised = critique_and_revise(first_answers(prompts, ask), ask, chosen, rounds=spec["rounds"], seed=key)
        pairs = [r.pair for r in revised if r.pair is not None]
        if not prefix and not pairs:
            raise UserError("no answer was revised", where="revise", fix="use a model that follows instructions (`by:`)")
        write_groups(out / f"{prefix}revised.jsonl", [r.demonstration for r in revised])
        write_groups(out / f"{prefix}revised_pairs.jsonl", pairs)
        history += [r.to_json() for r in revised]
    write_rows(out / "revisions.jsonl", history)
    (out / KEPT).unlink(missing_ok=True)


def open_chat(spec: Mapping[str, Any], inputs: Mapping[str, Path], device: str) -> Chat:
    """The model that answers, criticises and revises: the starting policy, or the one that is named."""
    from evenhand.judges.config import LLM, endpoint
    from evenhand.judges.local import LocalChat

    named = spec.get("judge")
    if named is not None and named["kind"] == "llm":
        words = {k: v for k, v in named.items() if k != "template_sha"}
        return endpoint(LLM(**words, **spec["how"]))
    folder = model_path(inputs["start"]) if named is None else named["path"]
    policy = load_policy(folder, dtype=spec["dtype"], device=device)
    tokenizer = load_tokenizer(folder)
    renderer = Renderer(tokenizer, template=None if tokenizer.chat_template else spec["template"])
    return LocalChat(policy, renderer, name="start" if named is None else named["path"])
