"""An engine that answers from a script: for tests, tutorials and stepping through a method in a debugger, without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from evenhand.engines.checks import per_completion
from evenhand.errors import UserError
from evenhand.types import Completion, Finish, Group, Prompt, Sampling

Answers = Mapping[str, Sequence[str]] | Callable[[Prompt, int], str]
"""Answers by prompt text or prompt id, or a function of the prompt and the completion index."""


class Tokenises(Protocol):
    """Turns text into token ids and back: any transformers tokenizer does."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class ScriptedEngine:
    """Gives fixed answers, in order; completion i of a prompt is answer i, starting over after the last.

    Without a tokenizer the completions are text only (`tokens` None, finish GIVEN), as if read from a file. With one they carry
    tokens, each with behaviour log-prob 0 (a script is certain), `stop_id` appended; `max_tokens` cuts tokens and text.

    >>> engine = ScriptedEngine({"Hi": ["Hello", "Hey"]})
    >>> (group,) = engine.generate([Prompt(content="Hi")], 3, Sampling())
    >>> [c.content for c in group.completions]
    ['Hello', 'Hey', 'Hello']
    >>> engine = ScriptedEngine(lambda prompt, i: prompt.text * (i + 1))
    >>> [c.content for c in engine.generate([Prompt(content="ab")], 2, Sampling())[0].completions]
    ['ab', 'abab']
    """

    def __init__(self, answers: Answers, *, tokenizer: Tokenises | None = None, stop_id: int | None = None) -> None:
        self._answers, self._tokenizer, self._stop_id = answers, tokenizer, stop_id
        self.calls: list[tuple[tuple[str, ...], int]] = []
        """What was asked: the prompts' ids and n of each call."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling | Sequence[Sampling],
        *,
        max_prompt: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Group]:
        """See `evenhand.protocols.Engine`. Of the sampling parameters only `max_tokens` has a meaning, and only with tokens."""
        each = per_completion(n, sampling)
        self.calls.append((tuple(p.id for p in prompts), n))
        groups = [Group(prompt=p, completions=tuple(self._completion(p, i, s) for i, s in enumerate(each))) for p in prompts]
        if progress is not None:
            progress(n * len(prompts), n * len(prompts))
        return groups

    def _answer(self, prompt: Prompt, index: int) -> str:
        if callable(self._answers):
            return self._answers(prompt, index)
        for key in (prompt.text, prompt.id):
            if answers := self._answers.get(key):
                return answers[index % len(answers)]
        raise UserError(
            "the script has no answer", where=f"prompt {prompt.id}", why=f"its text is {prompt.text!r}", fix="add its text or id"
        )

    def _completion(self, prompt: Prompt, index: int, sampling: Sampling) -> Completion:
        text = self._answer(prompt, index)
        if self._tokenizer is None:
            return Completion(content=text)
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        ids = ids if self._stop_id is None else [*ids, self._stop_id]
        kept = tuple(ids[: sampling.max_tokens])
        if len(kept) < len(ids):
            text = self._tokenizer.decode(kept)
        stopped = kept[-1:] == (self._stop_id,)
        return Completion(
            content=text, tokens=kept, behaviour_logp=(0.0,) * len(kept), finish=Finish.STOP if stopped else Finish.LENGTH
        )
