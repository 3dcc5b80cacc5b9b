"""What a preference model learns from: pairs written as the very questions it will be asked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.judges import template as templates
from evenhand.judges.local import asked
from evenhand.seeding import rng
from evenhand.types import Completion, Group, TokenGroup

TEMPLATE = "preference_model"


def examples(groups: Sequence[Group], renderer: Renderer, *, seed: int) -> list[Group]:
    """One demonstration per pair of answers with different known scores: both answers in one text, continued by A or B.

    Which answer is shown first is drawn per pair, keyed by the pair's number, so that no letter is right more often.
    """
    template = templates.get(TEMPLATE)
    out = []
    for number, (group, better, worse) in enumerate(_pairs(groups)):
        first = bool(rng(seed, "slot", number).random() < 0.5)
        shown = (better, worse) if first else (worse, better)
        messages = template.messages(group.prompt, answer_a=shown[0].text, answer_b=shown[1].text)
        prompt = replace(asked(messages, renderer), meta=group.prompt.meta)
        out.append(Group(prompt=prompt, completions=(Completion(content="A" if first else "B"),)))
    return out


def _pairs(groups: Sequence[Group]) -> Iterator[tuple[Group, Completion, Completion]]:
    for group in groups:
        scored = [i for i, score in enumerate(group.scores) if not math.isnan(score)]
        for i, j in combinations(scored, 2):
            if group.scores[i] != group.scores[j]:
                ordered = (i, j) if group.scores[i] > group.scores[j] else (j, i)
                yield group, group.completions[ordered[0]], group.completions[ordered[1]]


def letter_only(tokens: TokenGroup) -> TokenGroup:
    """The loss on the letter alone, not on the stop token after it. UserError where the letter is not one token."""
    (letter,) = tokens.completions
    if len(letter.ids) != 2:
        raise UserError(
            f"the letter '{tokens.group.completions[0].text}' takes {len(letter.ids) - 1} tokens here",
            where="preference_model",
            why="a preference model answers with one token",
            fix="use a tokenizer that knows A and B as tokens",
        )
    return replace(tokens, completions=(replace(letter, mask=(True, False)),))


def check_letters(examples: Sequence[TokenGroup]) -> None:
    """The two letters must be different tokens: a closed vocabulary may know neither."""
    said = {t.group.completions[0].text: t.completions[0].ids[0] for t in examples}
    if len(set(said.values())) < len(said):
        raise UserError(
            "A and B are the same token here", where="preference_model", fix="use a tokenizer that knows both letters"
        )
