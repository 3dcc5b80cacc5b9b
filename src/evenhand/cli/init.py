"""`evenhand init`: a first experiment file that runs, from a model, a file of data, and TRL's configuration if there is one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.display import spelled_out
from evenhand.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from evenhand.cli.from_trl import Carried
    from evenhand.cli.starter import Starter
    from evenhand.data.load import Dataset
    from evenhand.data.template import Renderer
    from evenhand.types import Group

METHOD = {"preferences": "dpo", "demonstrations": "sft", "prompts": "rloo"}
"""What is tried on data of a kind where nobody says."""
LOOKED_AT = 500
"""Rows whose lengths are measured."""


def init(
    out: Annotated[Path, typer.Argument(help="The file to write; one that exists is never replaced.")] = Path("experiment.yaml"),
    model: Annotated[str, typer.Option(help="A model folder or a Hub name.")] = "",
    data: Annotated[str, typer.Option(help="Pairs, demonstrations or prompts: a file, or a data set of the Hub.")] = "",
    method: Annotated[str, typer.Option(help="One of docs/methods.md (default: what fits the data).")] = "",
    from_trl: Annotated[Path | None, typer.Option(help="A configuration of TRL, YAML or JSON, whose settings are taken.")] = None,
) -> None:
    """Write a first experiment file that runs, with a comment on what to change. Asks for what is not given."""
    from evenhand.cli.from_trl import Carried, carried, read
    from evenhand.cli.models import quiet
    from evenhand.cli.starter import REWARD, text

    if out.exists():
        raise UserError("this file exists", where=str(out), fix="name another: evenhand init OTHER.yaml")
    quiet()
    found = carried(read(from_trl), method) if from_trl is not None else Carried(method=method)
    model = model or found.model or _asked("Model (a folder or a Hub name)", "--model")
    data = data or found.data or _asked("Data (a file or a Hub name)", "--data")
    made = starter(out, model, data, found)
    written = [out]
    if not made.learns_a_judge and not made.reward.exists():
        made.reward.write_text(REWARD, encoding="utf-8")
        written.append(made.reward)
    out.write_text(text(made), encoding="utf-8")
    for line in (*(f"not taken over: {left}" for left in found.left), f"written: {', '.join(map(str, written))}"):
        print(spelled_out(line))
    print(f"next: evenhand run {out} --plan    (what it will do)\n      evenhand run {out}           (do it)")


def _asked(what: str, option: str) -> str:
    if not sys.stdin.isatty():
        raise UserError(f"{what.split(' (')[0].lower()} is not named", where="init", fix=f"add {option} NAME")
    return str(typer.prompt(what)).strip()


def starter(out: Path, model: str, data: str, found: Carried) -> Starter:
    """What the file will say, from a look at the data and the tokenizer."""
    from evenhand import methods
    from evenhand.cli.describe import renderer_of
    from evenhand.cli.starter import Starter, share_held_out
    from evenhand.data.convert import holdout
    from evenhand.data.load import load
    from evenhand.train.method import BINARY, PREFERENCES

    loaded = load(data, where="--data")
    print(spelled_out(loaded.description))
    kind = kind_of(loaded)
    method = methods.METHODS.canonical(found.method or METHOD[kind])
    if method not in methods.METHODS:
        raise UserError(f"unknown method '{method}'", where="--method", fix=did_you_mean(method, methods.METHODS))
    made = methods.build(method, {}, steps=1, max_tokens=64)
    if not made.online and made.split == PREFERENCES and kind != "preferences":
        needs = "labelled answers or pairs" if made.data == BINARY else "pairs"
        raise UserError(
            f"{method} learns from {needs}, these are {kind}", where="--method", fix=f"use {METHOD[kind]}, or other data"
        )
    renderer = renderer_of(model, None)
    template = None if renderer.tokenizer.chat_template or _verbatim(loaded.groups) else "plain"
    prompt, completion, about = lengths(loaded.groups, renderer_of(model, template), model)
    held = share_held_out(len(loaded.groups))
    asked = len({g.prompt.id for g in holdout(loaded.groups, held, 0)[1]})
    return Starter(
        name=out.stem, model=model, data=data, kind=kind, method=method, online=made.online, rows=len(loaded.groups),
        holdout=held, asked=max(1, min(200, asked)),
        prompt=found.lengths.get("prompt", prompt), completion=found.lengths.get("completion", completion), about_lengths=about,
        template=template, reward=out.with_name("reward.py"), train=found.train, sampling=found.sampling, arm=found.arm,
        precision=found.precision, seeds=found.seeds,
    )  # fmt: skip


def kind_of(data: Dataset) -> str:
    """The split that rows belong to: pairs and labelled answers, demonstrations, or prompts alone."""
    if any(s == s for g in data.groups for s in g.scores):
        return "preferences"
    return "demonstrations" if any(g.completions for g in data.groups) else "prompts"


def _verbatim(groups: Sequence[Group]) -> bool:
    return all(isinstance(g.prompt.content, str) for g in groups)


def lengths(groups: Sequence[Group], renderer: Renderer, model: str) -> tuple[int, int, str]:
    """(prompt, completion, how they were found): what 99 of 100 rows need, in sixteens, as far as the model's context goes."""
    looked = groups[:: max(1, len(groups) // LOOKED_AT)][:LOOKED_AT]
    prompts = sorted(len(renderer.prompt_ids(g.prompt)) for g in looked)
    answered = [g for g in looked if g.completions]
    tokens = renderer.tokenise_all(answered, max_prompt=None, max_completion=None).groups
    answers = sorted(len(c.ids) for t in tokens for c in t.completions)
    prompt, completion = _ample(prompts), _ample(answers) if answers else 128
    about = f"99% of prompts have at most {_most(prompts)}" + (f", of answers {_most(answers)}" if answers else "")
    window = _window(model)
    if window is not None and prompt + completion > window:
        completion = min(completion, window // 2)
        prompt, about = min(prompt, window - completion), f"{about}; the model's context holds {window}"
    return prompt, completion, about


def _most(ordered: Sequence[int]) -> int:
    return ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] if ordered else 0


def _ample(ordered: Sequence[int]) -> int:
    return max(16, -(-_most(ordered) // 16) * 16)


def _window(model: str) -> int | None:
    from evenhand.spec.lengths import window_of_model

    return window_of_model(model)


COMMANDS: tuple[Any, ...] = (init,)
