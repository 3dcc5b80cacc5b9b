"""What every engine asks and checks: sampling parameters, prompts as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from evenhand.errors import UserError
from evenhand.types import Group, Prompt, Sampling


class Renders(Protocol):
    """What an engine needs of `evenhand.data.template.Renderer`."""

    stop_ids: frozenset[int]

    def prompt_ids(self, prompt: Prompt, max_prompt: int | None = None) -> Sequence[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


def prompt_ids(renderer: Renders, prompt: Prompt, max_prompt: int | None) -> list[int]:
    """The prompt's token ids, the last `max_prompt` of them; UserError when there are none."""
    ids = list(renderer.prompt_ids(prompt, max_prompt))
    if not ids:
        raise UserError("the prompt has no tokens", where=f"prompt {prompt.id}", fix="give it text, or use a chat template")
    return ids


def per_completion(n: int, sampling: Sampling | Sequence[Sampling]) -> tuple[Sampling, ...]:
    """One checked `Sampling` per completion index.

    >>> [s.temperature for s in per_completion(2, Sampling(temperature=0.5))]
    [0.5, 0.5]
    """
    if n < 1:
        raise UserError(f"n is {n}", where="generate", fix="ask for at least one completion per prompt")
    if isinstance(sampling, Sampling):
        check_sampling(sampling)
        return (sampling,) * n
    each = tuple(sampling)
    if len(each) != n:
        raise UserError(f"{len(each)} sampling parameters for {n} completions", where="generate", fix="give one, or one for each")
    for one in each:
        if not isinstance(one, Sampling):
            raise UserError(f"{one!r} is not a Sampling", where="generate", fix="pass evenhand.types.Sampling")
        check_sampling(one)
    return each


def check_sampling(sampling: Sampling) -> None:
    """Raises UserError for a parameter outside its range."""
    s = sampling
    problems = {
        "temperature": (s.temperature >= 0 and s.temperature < float("inf"), "0 (greedy) or a positive number"),
        "top_p": (0 < s.top_p <= 1, "above 0 and at most 1 (1 is off)"),
        "top_k": (s.top_k >= 0, "0 (off) or more"),
        "min_p": (0 <= s.min_p < 1, "at least 0 (off) and below 1"),
        "max_tokens": (s.max_tokens >= 1, "at least 1"),
    }
    for name, (fine, rule) in problems.items():
        if not fine:
            raise UserError(f"{name} is {getattr(s, name)}", where="sampling", fix=f"use {rule}")


def with_tokens(groups: list[Group]) -> list[Group]:
    """The groups, if every answer has what is learned from: its tokens, and a log-prob for each. Raises: UserError."""
    for group in groups:
        for answer in group.completions:
            if answer.tokens is None or answer.behaviour_logp is None or len(answer.tokens) != len(answer.behaviour_logp):
                raise no_tokens("the engine")
    return groups


def no_tokens(engine: str) -> UserError:
    """What to say of an engine that gives text where tokens are needed."""
    return UserError(
        f"{engine} says the text of its answers and not their token ids", where="engine",
        why="text that is tokenised again need not be the tokens that were sampled, and has no log-probs: it may judge and "
        "evaluate, and never feeds training",
        fix="use a server that understands `return_token_ids`, as vLLM does, or `engine: local`",
    )  # fmt: skip
