"""What the commands accept as a model: a model folder, an arm's folder of a run directory, or a Hub name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.cli.progress import Waiting
from evenhand.errors import UserError
from evenhand.store import pointer

if TYPE_CHECKING:
    from evenhand.data.template import Renderer
    from evenhand.models.policy import Policy
    from evenhand.types import Prompt


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
    from evenhand.configfile.text_file import json_object

    config = Path(path) / "config.json"
    named = json_object(config).get("architectures")
    return any(a.endswith("ForSequenceClassification") for a in named or ())


def open_policy(name: str, device: str = "auto") -> tuple[Policy, Renderer]:
    """A policy ready to sample, and its renderer."""
    from evenhand.models.load import load_policy
    from evenhand.stages.common import renderer_of

    quiet()
    path = model_path(name)
    with Waiting("opening the model"):
        policy = load_policy(path, device=device)
        policy.eval()
        return policy, renderer_of(path, None)


def quiet() -> None:
    """No progress bars of libraries between a person and the answer."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def as_prompt(text: str, renderer: Any, *, raw: bool) -> Prompt:
    """A user's turn where the tokenizer has a chat template; verbatim text where it has none or `raw` asks for it."""
    from evenhand.types import Message, Prompt

    chat = renderer.tokenizer.chat_template and not raw
    return Prompt(content=(Message("user", text),) if chat else text)


def read_prompts(path: Path, as_prompt: Callable[[str], Prompt]) -> list[Prompt]:
    """The prompts of a file: one a line of a .txt, else whatever the data loader recognises."""
    if path.suffix == ".txt":
        if not path.is_file():
            raise UserError("there is no such file", where=str(path), fix="check the path")
        from evenhand.data.decode import read_text

        lines = read_text(path, "utf-8").split("\n")  # splitlines would also cut at U+2028 and its like
        return [as_prompt(line.removesuffix("\r")) for line in lines if line.strip()]
    from evenhand.data.load import load

    found = load(str(path), where=str(path)).prompts
    texts = sum(isinstance(prompt.content, str) for prompt in found)
    if texts and not isinstance(as_prompt("").content, str):
        print(
            f"{path}: {texts} of {len(found)} prompts are text, which the model reads verbatim, without its chat template; "
            '{"messages": [{"role": "user", "content": ...}]} makes one a turn, and so does a .txt file with one a line',
            file=sys.stderr,
        )
    return found
