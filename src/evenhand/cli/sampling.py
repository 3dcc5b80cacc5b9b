"""Models where a command expects answers: they answer first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evenhand.cli.models import POINTER, as_prompt, model_path, open_policy, read_prompts
from evenhand.errors import UserError

if TYPE_CHECKING:
    from evenhand.types import Group


def is_model(path: Path) -> bool:
    """True for a model's or an arm's folder. A hub name is none: what is not here cannot be told from a misspelt file."""
    return any((path / name).exists() for name in ("config.json", "model/config.json", POINTER)) or any(path.glob("seed-*/model"))


def nothing_asked(path: Path) -> UserError:
    """What to say of a model where answers are expected and no prompts were given."""
    model_path(str(path))  # which says so when the folder holds several seeds
    return UserError("is a model, and there is nothing to answer", where=str(path), fix="add --prompts FILE")


def sample(
    model: str, prompts: Path, *, n: int = 1, max_tokens: int = 128, temperature: float = 1.0, limit: int | None = None,
    device: str = "auto",
) -> list[Group]:  # fmt: skip
    """`n` answers of a policy to each prompt of a file; the same seed for every model, so that answers can be made again."""
    from evenhand.cli.models import is_reward_model
    from evenhand.engines.registry import DEFAULT, open_engine
    from evenhand.types import Sampling

    if is_reward_model(model_path(model)):
        raise UserError("is a reward model, which answers nothing", where=model, fix="give a policy, or a file of answers")
    policy, renderer = open_policy(model, device)
    chat = bool(renderer.tokenizer.chat_template)
    asked = read_prompts(prompts, lambda text: as_prompt(text, renderer, raw=not chat))[:limit]
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=0)
    return open_engine(DEFAULT, policy, renderer).generate(asked, n, sampling)
