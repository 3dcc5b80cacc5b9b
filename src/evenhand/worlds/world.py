"""A world: a task family made by a seeded program, with demonstrations, preferences, a gold reward and a small model's shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from evenhand.errors import UserError, one_of
from evenhand.protocols import Reward
from evenhand.seeding import rng
from evenhand.types import Completion, Group, Message, Prompt
from evenhand.worlds import labels
from evenhand.worlds.tokenizer import BOS, word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPLITS = ("train", "heldout")
PATIENCE = 1000
"""Draws in a row that bring no new prompt, or no different answers, before the world says that it has none."""


class Task(Protocol):
    """What a world is made of. All draws come from the generator it is handed."""

    def request(self, generator: np.random.Generator, split: str) -> Prompt: ...

    def answer(self, prompt: Prompt, generator: np.random.Generator) -> str | tuple[Message, ...]: ...

    def document(self, generator: np.random.Generator) -> str: ...

    def language(self) -> Iterator[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A task family with a known gold reward. The same (seed, n) gives the same data; a longer list begins like a shorter one.

    Training prompts and held-out prompts never share what is asked for, whatever the seeds.
    """

    name: str
    version: int
    """Raised whenever the data of a seed changes."""
    task: Task
    gold: Reward
    """The reward that the annotator sees through noise, and by which answers are judged."""
    annotator: labels.Annotator
    shape: Mapping[str, Any]

    def prompts(self, seed: int, n: int, split: str = "train") -> list[Prompt]:
        """`n` different prompts, as conversations; `meta` holds what the gold reward needs."""
        return list(self._requests(seed, n, split, "prompts"))

    def demonstrations(self, seed: int, n: int, split: str = "train") -> list[Group]:
        """`n` different prompts, each answered once by the writer, who is of middling skill."""
        generators = (rng(seed, self.name, "demonstrate", split, i) for i in range(n))
        prompts = self._requests(seed, n, split, "demonstrations")
        return [self._answered(prompt, 1, generator) for prompt, generator in zip(prompts, generators, strict=True)]

    def preferences(self, seed: int, n: int, split: str = "train") -> list[Group]:
        """`n` pairs of different answers, scored 1 and 0 by the annotator, in no particular order.

        `parts` hold `gold`, `utility` and `preference`, see `Annotator.label`.
        """
        generators = (rng(seed, self.name, "compare", split, i) for i in range(n))
        prompts = self._requests(seed, n, split, "preferences")
        pairs = [self._answered(prompt, 2, generator) for prompt, generator in zip(prompts, generators, strict=True)]
        return labels.label_all(self.annotator, pairs, self.gold(pairs), seed=seed)

    def corpus(self, seed: int, n: int) -> list[Group]:
        """`n` plain documents to pretrain on: verbatim groups whose prompt is the start token. Held-out requests never occur."""
        documents = (self.task.document(rng(seed, self.name, "corpus", i)) for i in range(n))
        start = Prompt(content=BOS)
        return [Group(prompt=start, completions=(Completion(content=text),)) for text in documents]

    def label_ceiling(self, seed: int = 0, n: int = 2000) -> float:
        """Accuracy of the Bayes-optimal reward model on held-out pairs, estimated on `n` of them."""
        return labels.ceiling(self.preferences(seed, n, "heldout"))

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The world's own tokenizer: a closed vocabulary and a chat template."""
        return word_tokenizer(self.task.language())

    def model_config(self) -> dict[str, Any]:
        """The transformers config (as a dict) of a model small enough to pretrain in about a minute; no vocabulary size."""
        return dict(self.shape)

    def _requests(self, seed: int, n: int, split: str, purpose: str) -> Iterator[Prompt]:
        """`n` prompts without a repetition. Purposes draw apart, so that pairs are not about the demonstrations' prompts."""
        one_of("split", split, SPLITS, where=f"world {self.name}")
        generator, idle = rng(seed, self.name, purpose, split), 0
        seen: set[str] = set()
        while len(seen) < n:
            prompt = self.task.request(generator, split)
            if prompt.id in seen:
                idle += 1
                if idle > PATIENCE:
                    raise UserError(
                        f"{n} different {split} prompts are asked for; there seem to be only {len(seen)}",
                        where=f"world {self.name}",
                        fix="ask for fewer prompts",
                    )
                continue
            seen.add(prompt.id)
            idle = 0
            yield prompt

    def _answered(self, prompt: Prompt, n: int, generator: np.random.Generator) -> Group:
        """The prompt with `n` different answers, in an order that tells nothing: all are drawn anew when two are equal."""
        for _ in range(PATIENCE):
            drawn = [_turns(self.task.answer(prompt, generator)) for _ in range(n)]
            if len({tuple(m.content for m in turns) for turns in drawn}) == n:
                return Group(prompt=prompt, completions=tuple(Completion(content=turns) for turns in drawn))
        raise UserError(
            f"the writer does not give {n} different answers to one prompt", where=f"world {self.name}",
            fix="lower its `skill`, so that it makes mistakes, or ask for demonstrations alone",
        )  # fmt: skip


def _turns(answer: str | tuple[Message, ...]) -> tuple[Message, ...]:
    """An answer as turns: a text is one of the assistant's."""
    return (Message("assistant", answer),) if isinstance(answer, str) else answer


def with_annotator(world: World, **changes: float) -> World:
    """The same world seen by another annotator, e.g. one without a length bias: `with_annotator(w, bias_per_word=0.0)`."""
    return replace(world, annotator=replace(world.annotator, **changes))
