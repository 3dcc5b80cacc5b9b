"""Texts that are longer than a model has positions for: prompts lose their beginning, which is said; answers nothing."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from typing import Any

from evenhand.errors import UserError
from evenhand.types import Prompt, TokenGroup

_log = logging.getLogger(__name__)


def window_of(config: Any) -> int | None:
    """Tokens that a model has positions for; None when its config does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def overflow(whole: int, answer: int, window: int | None, prompt: Prompt, *, reader: str) -> int:
    """How many tokens a prompt loses at its beginning, so that `whole` tokens, `answer` of them the answer's, fit `window`.

    Said once of every `reader`. UserError where the answer alone leaves no room for a token of its prompt.
    """
    if window is None or whole <= window:
        return 0
    if answer >= window:
        raise UserError(
            f"an answer of {answer} tokens does not fit the {window} that the {reader} has positions for",
            where=f"prompt {prompt.id}",
            why="its score would be read in the middle of the answer, or beyond what the model has ever seen",
            fix=f"use answers below {window} tokens (`lengths.completion`, or --max-completion), or a model of a longer context",
        )
    _say(reader, window, prompt.id)
    return whole - window


def fitted(tokens: TokenGroup, window: int | None, *, reader: str) -> TokenGroup:
    """A tokenised group whose prompt has lost what does not fit before its longest answer."""
    longest = max((len(c.ids) for c in tokens.completions), default=0)
    over = overflow(len(tokens.prompt) + longest, longest, window, tokens.group.prompt, reader=reader)
    return replace(tokens, prompt=tokens.prompt[over:]) if over else tokens


@cache
def _say(reader: str, window: int, first: str) -> None:
    _log.warning(
        "prompts lose their beginning before the %s: with their answers they are longer than its %d positions (first: prompt %s)",
        reader, window, first,
    )  # fmt: skip
