"""Which fields of a prompt a reward reads, and which answers are to prompts that have them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import override

from evenhand.types import Group

TRIED = 4
"""Answers that tell what a reward reads: it reads the same of every prompt, or asks for it."""


class WatchedFields(dict[str, Any]):
    """A prompt's `meta` that remembers in `seen` what is looked up; who goes over all of it has read all of it."""

    def __init__(self, meta: Any, seen: set[str]) -> None:
        super().__init__(meta)
        self.seen = seen

    def __deepcopy__(self, memo: dict[int, Any]) -> WatchedFields:
        return WatchedFields({name: copy.deepcopy(dict.__getitem__(self, name), memo) for name in self.keys()}, self.seen)

    @override
    def __getitem__(self, field: str) -> Any:
        self.seen.add(field)
        return super().__getitem__(field)

    @override
    def get(self, field: str, default: Any = None) -> Any:
        self.seen.add(field)
        return super().get(field, default)

    @override
    def __contains__(self, field: object) -> bool:
        self.seen.add(str(field))
        return super().__contains__(field)

    @override
    def __iter__(self) -> Iterator[str]:
        self.seen.update(super().keys())
        return super().__iter__()

    @override
    def items(self) -> Any:
        self.seen.update(super().keys())
        return super().items()

    @override
    def values(self) -> Any:
        self.seen.update(super().keys())
        return super().values()


def fields_read(score: Callable[[Sequence[Group]], Any], asked: Sequence[Group]) -> frozenset[str]:
    """The fields that all prompts of `asked` have and that `score` reads when it scores the first few of them.

    >>> from evenhand.types import Completion, Prompt
    >>> sums = [Group(prompt=Prompt(content="2 + 2?", meta={"answer": 4, "level": 1}), completions=(Completion(content="4"),))]
    >>> sorted(fields_read(lambda groups: [g.completions[0].text == str(g.prompt.meta["answer"]) for g in groups], sums))
    ['answer']
    """
    if not asked:
        return frozenset()
    seen: set[str] = set()
    score([replace(g, prompt=replace(g.prompt, meta=WatchedFields(g.prompt.meta, seen))) for g in asked[:TRIED]])
    return frozenset(seen) & frozenset.intersection(*(frozenset(g.prompt.meta) for g in asked))


def having(groups: Iterable[Group], fields: frozenset[str]) -> list[Group]:
    """The groups whose prompts have all of `fields`: to those that lack one, nothing could be said of an answer."""
    return [g for g in groups if fields <= g.prompt.meta.keys()]
