"""Models where a command expects answers: they answer first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evenhand.cli.models import as_prompt, model_path, open_policy, read_prompts
from evenhand.cli.progress import Progress
from evenhand.errors import UserError
from evenhand.store.pointer import POINTER, holds_model

if TYPE_CHECKING:
    from evenhand.types import Group


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
    from evenhand.cli.models import is_reward_model
    from evenhand.engines.registry import DEFAULT, open_engine
    from evenhand.evaluation import conversations
    from evenhand.evaluation.mt_bench import read_questions
    from evenhand.types import Sampling

    if is_reward_model(model_path(model)):
        raise UserError("is a reward model, which answers nothing", where=model, fix="give a policy, or a file of answers")
    policy, renderer = open_policy(model, device)
    chat = bool(renderer.tokenizer.chat_template)
    sampling, engine = Sampling(temperature=temperature, max_tokens=max_tokens, seed=0), open_engine(DEFAULT, policy, renderer)
    if n == 1 and conversations.holds_questions(prompts):
        questions = dict(list(read_questions(prompts).items())[:limit])
        if not chat:
            conversations.refuse_without_template(questions, model)
        return conversations.converse(questions, lambda asked: engine.generate(asked, 1, sampling))
    asked = read_prompts(prompts, lambda text: as_prompt(text, renderer, raw=not chat))[:limit]
    return engine.generate(asked, n, sampling, progress=Progress("answered"))
