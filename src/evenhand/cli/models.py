"""What the commands accept as a model: a model folder, an arm's folder of a run directory, or a Hub name; and its answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from evenhand.cli.terminal import Progress, Waiting
from evenhand.configfile.text_file import json_object
from evenhand.errors import UserError
from evenhand.store import pointer
from evenhand.store.pointer import POINTER, holds_model
from evenhand.types import Group, Message, Prompt, Sampling

if TYPE_CHECKING:
    from evenhand.data.template import Renderer
    from evenhand.models.policy import Policy


def model_path(name: str) -> Path | str:
    """The folder of the weights. An arm's folder holds them in `model/` or `adapter/`, or points at them.

    >>> model_path("org/name")
    'org/name'
    """
    folder = Path(name).expanduser()
    if (folder / "model").is_dir():
        return folder / "model"
    if (folder / pointer.POINTER).is_file() or (pointer.holds_model(folder) and not (folder / "config.json").is_file()):
        return pointer.model_path(folder)
    if (folder / "experiment.json").is_file():
        there = next(iter(sorted(folder.glob("arms/*/seed-*"))), folder / "arms" / "ARM" / "seed-S")
        raise UserError("is a run directory, not one model", where=name, fix=f"choose an arm and seed, such as {there}")
    seeds = sorted(p.name for p in folder.glob("seed-*"))
    if seeds:
        raise UserError("holds several seeds, not one model", where=name, fix=f"choose one: {folder / seeds[0]}")
    return folder if folder.is_dir() else name


def is_reward_model(path: Path | str) -> bool:
    """True for a folder whose config names a sequence classifier."""
    config = Path(path) / "config.json"
    named = json_object(config).get("architectures")
    return any(a.endswith("ForSequenceClassification") for a in named or ())


def open_policy(name: str, device: str = "auto", template: str | None = None) -> tuple[Policy, Renderer]:
    """A policy ready to sample, and its renderer; a template by name is for a tokenizer without one."""
    from evenhand.models.load import load_policy
    from evenhand.stages.common import renderer_of

    quiet()
    path = model_path(name)
    with Waiting("opening the model"):
        policy = load_policy(path, device=device)
        policy.eval()
        return policy, renderer_of(path, template)


def quiet() -> None:
    """No progress bars of libraries between a person and the answer."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def as_prompt(text: str, renderer: Renderer | None, *, raw: bool = False) -> Prompt:
    """A user's turn where the tokenizer has a chat template; verbatim text where it has none or `raw` asks for it."""
    chat = renderer is not None and renderer.tokenizer.chat_template and not raw
    return Prompt(content=(Message("user", text),) if chat else text)


def read_prompts(path: Path, renderer: Renderer | None = None, *, raw: bool = False) -> list[Prompt]:
    """The prompts of a file: one a line of a .txt (see `as_prompt`), else whatever the data loader recognises."""
    if path.suffix == ".txt":
        if not path.is_file():
            raise UserError("there is no such file", where=str(path), fix="check the path")
        from evenhand.data.decode import read_text

        lines = read_text(path, "utf-8").split("\n")  # splitlines would also cut at U+2028 and its like
        return [as_prompt(line.removesuffix("\r"), renderer, raw=raw) for line in lines if line.strip()]
    from evenhand.data.load import load

    found = load(str(path), where=str(path)).prompts
    texts = sum(isinstance(prompt.content, str) for prompt in found)
    if texts and not isinstance(as_prompt("", renderer, raw=raw).content, str):
        print(
            f"{path}: {texts} of {len(found)} prompts are text, which the model reads verbatim, without its chat template; "
            '{"messages": [{"role": "user", "content": ...}]} makes one a turn, and so does a .txt file with one a line',
            file=sys.stderr,
        )
    return found


def is_model(path: Path) -> bool:
    """True for a model's or an arm's folder. A hub name is none: what is not here cannot be told from a misspelt file."""
    if holds_model(path) or any(holds_model(seed) for seed in path.glob("seed-*")):
        return True
    return (path / "config.json").exists() or (path / POINTER).exists()


def nothing_asked(path: Path) -> UserError:
    """What to say of a model where answers are expected and no prompts were given."""
    model_path(str(path))  # which says so when the folder holds several seeds
    return UserError("is a model, and there is nothing to answer", where=str(path), fix="add --prompts FILE")


def sample(
    model: str, prompts: Path, *, n: int = 1, max_tokens: int = 128, temperature: float = 1.0, limit: int | None = None,
    device: str = "auto",
) -> list[Group]:  # fmt: skip
    """`n` answers of a policy to each prompt of a file; the same seed for every model, so that answers can be made again.

    Questions of several turns are asked turn by turn, and give a group per question and turn.
    """
    from evenhand.engines.registry import DEFAULT, open_engine
    from evenhand.evaluation import conversations
    from evenhand.evaluation.mt_bench import read_questions

    if is_reward_model(model_path(model)):
        raise UserError("is a reward model, which answers nothing", where=model, fix="give a policy, or a file of answers")
    policy, renderer = open_policy(model, device)
    sampling, engine = Sampling(temperature=temperature, max_tokens=max_tokens, seed=0), open_engine(DEFAULT, policy, renderer)
    if n == 1 and conversations.holds_questions(prompts):
        questions = dict(list(read_questions(prompts).items())[:limit])
        if not renderer.tokenizer.chat_template:
            conversations.refuse_without_template(questions, model)
        return conversations.converse(questions, lambda asked: engine.generate(asked, 1, sampling))
    asked = read_prompts(prompts, renderer)[:limit]
    return engine.generate(asked, n, sampling, progress=Progress("answered"))
