"""What the networks say of sampled completions, before anything is learned from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from evenhand.train.examples import Example, cut_group
from evenhand.train.logprobs import Rows
from evenhand.train.rollouts.experience import HINDSIGHT, Shows
from evenhand.types import Group, Head, Prompt, TokenGroup

FIELDS = {Head.LOGP: "old_logp", Head.VALUE: "value", Head.KL: "exact_kl", Head.COLLISION: "collision"}


@dataclass(frozen=True, kw_only=True)
class Reader:
    """`read(heads, examples)` gives the trainer's own log-probs and values; `reference(examples)` those of the reference.
    `prompt_ids` are the tokens of a prompt that no sampler was asked: where a credit shows the policy a good answer."""

    tokenise: Callable[[Group], TokenGroup]
    read: Callable[[frozenset[Head], Sequence[Example]], dict[Head, Rows]]
    reference: Callable[[Sequence[Example]], Rows] | None = None
    prompt_ids: Callable[[Prompt], Sequence[int]] | None = None

    def __call__(self, examples: Sequence[Example], heads: frozenset[Head], *, generator_is_reference: bool) -> list[Example]:
        """The examples with a field per head; `old_logp` is as sampled where the trainer is not asked for it."""
        fields = {FIELDS[head]: rows for head, rows in (self.read(heads, examples) if heads else {}).items()}
        if Head.LOGP not in heads:
            fields["old_logp"] = [as_sampled(e) for e in examples]
        if generator_is_reference:
            fields["ref_logp"] = fields["old_logp"]
        elif self.reference is not None:
            fields["ref_logp"] = self.reference(examples)
        return [replace(e, per_token={name: rows[n] for name, rows in fields.items()}) for n, e in enumerate(examples)]

    def in_hindsight(self, examples: Sequence[Example], credit: Shows) -> list[Example]:
        """The examples with the policy's log-probs of every answer once it was shown a good one; its own where there is none.

        Answers that are shown the same one share its tokens.
        """
        asked: list[Example] = []
        places: list[tuple[int, list[int]]] = []
        for n, e in enumerate(examples):
            for good, answers in beside(credit.shown(e.tokens.group)).items():
                asked.append(self._shown(e, credit, good, answers))
                places.append((n, answers))
        found = [list(e.per_token["old_logp"]) for e in examples]
        rows = self.read(frozenset({Head.LOGP}), asked)[Head.LOGP] if asked else []
        for (n, answers), told in zip(places, rows, strict=True):
            for i, row in zip(answers, told, strict=True):
                found[n][i] = row
        return [replace(e, per_token={**e.per_token, HINDSIGHT: tuple(t)}) for e, t in zip(examples, found, strict=True)]

    def beside_good(self, examples: Sequence[Example], credit: Shows) -> list[Example]:
        """The examples, each answer with the prompt that shows a good one beside it; () where there is none."""
        return [replace(e, shown=tuple(self._prompts(e, credit))) for e in examples]

    def _prompts(self, e: Example, credit: Shows) -> Iterator[tuple[int, ...]]:
        shown = credit.shown(e.tokens.group)
        told = {good: self._told(e, credit, good)[1] for good in beside(shown)}
        yield from (() if good is None else told[good] for good in shown)

    def _shown(self, e: Example, credit: Shows, good: int, answers: Sequence[int]) -> Example:
        prompt, ids = self._told(e, credit, good)
        cut = replace(cut_group(e.tokens.group, answers), prompt=prompt)
        own = tuple(e.tokens.completions[i] for i in answers)
        return Example(tokens=TokenGroup(prompt=ids, completions=own, group=cut))

    def _told(self, e: Example, credit: Shows, good: int) -> tuple[Prompt, tuple[int, ...]]:
        """The prompt with the answer `good` beside it, and its tokens."""
        assert self.prompt_ids is not None
        prompt = credit.asked(e.tokens.group.prompt, e.tokens.group.completions[good])
        return prompt, tuple(self.prompt_ids(prompt))


def as_sampled(example: Example) -> tuple[torch.Tensor, ...]:
    """The log-probs of each completion's tokens as the engine sampled them."""
    return tuple(torch.tensor(c.behaviour_logp) for c in example.tokens.completions)


def beside(shown: Sequence[int | None]) -> dict[int, list[int]]:
    """Which answers are shown each good one.

    >>> beside([2, None, 0, 2])
    {2: [0, 3], 0: [2]}
    """
    found: dict[int, list[int]] = {}
    for answer, good in enumerate(shown):
        if good is not None:
            found.setdefault(good, []).append(answer)
    return found
