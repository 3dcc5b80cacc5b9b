"""Cleaning: exact and near duplicates, pairs without a difference, and overlap with evaluation prompts. All deterministic.

Every function keeps the order and says which groups went and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evenhand.data.minhash import Grams, Signatures, jaccard, shingles, words
from evenhand.errors import UserError, one_of
from evenhand.types import Content, Group, Message

KEYS = ("turns", "duplicates", "by", "threshold", "identical", "against", "ngram")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What is left, and (index into the input, reason) of what went."""

    groups: tuple[Group, ...]
    removed: tuple[tuple[int, str], ...] = ()


def group_text(group: Group) -> str:
    """Prompt and completions as one text."""
    return "\n".join([group.prompt.text, *(c.text for c in group.completions)])


def _sift(groups: Sequence[Group], verdict: Callable[[int, Group], str]) -> Cleaned:
    """Keep the groups about which there is nothing to say."""
    said = [verdict(index, group) for index, group in enumerate(groups)]
    kept = tuple(group for group, reason in zip(groups, said, strict=True) if not reason)
    return Cleaned(kept, tuple((index, reason) for index, reason in enumerate(said) if reason))


def drop_exact(groups: Sequence[Group], *, by: str = "group") -> Cleaned:
    """Keep the first of groups with equal prompt, completions and scores; with `by="prompt"`, of equal prompts."""
    first: dict[Any, int] = {}

    def verdict(index: int, group: Group) -> str:
        key = group.prompt.id
        if by == "group":
            key = repr((group.prompt.content, [c.content for c in group.completions], group.scores))
        earlier = first.setdefault(key, index)
        return "" if earlier == index else f"duplicate of {earlier}"

    return _sift(groups, verdict)


def drop_near(groups: Sequence[Group], *, threshold: float = 0.8, by: str = "group", size: int = 3) -> Cleaned:
    """Keep the first of groups whose texts have a Jaccard similarity of at least `threshold` over word `size`-grams.

    A group goes when it is that near to an earlier one that stays. Candidates come from MinHash with banding, chosen so that
    a pair at the threshold is found with probability 0.99; each is then checked exactly, so nothing else ever goes.
    Source: Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"{threshold} is not a similarity", where="threshold", fix="use a number above 0 and up to 1")
    text = group_text if by == "group" else lambda group: group.prompt.text
    signatures = Signatures(threshold)
    kept: dict[int, np.ndarray] = {}

    def verdict(index: int, group: Group) -> str:
        grams = shingles(words(text(group)), size)
        buckets = signatures.buckets(grams)
        near = next((i for i in signatures.candidates(buckets) if jaccard(grams, kept[i]) >= threshold), None)
        if near is not None:
            return f"near duplicate of {near}"
        kept[index] = grams
        signatures.add(index, buckets)
        return ""

    return _sift(groups, verdict)


def drop_identical(groups: Sequence[Group]) -> Cleaned:
    """Drop groups of several completions that all say the same: there is nothing to prefer."""

    def verdict(index: int, group: Group) -> str:
        texts = {c.text.strip() for c in group.completions}
        return "all completions are equal" if len(group.completions) > 1 and len(texts) == 1 else ""

    return _sift(groups, verdict)


def drop_crooked(groups: Sequence[Group]) -> Cleaned:
    """Drop conversations in which user and assistant do not take turns, the user first (after a system turn, if any).

    Conversations with tools are left alone: there the assistant speaks, a tool answers, and the assistant goes on.
    """
    return _sift(groups, lambda index, group: _crooked(group))


def merge_turns(groups: Sequence[Group]) -> Cleaned:
    """Join neighbouring turns of one speaker by a blank line; then drop what still does not alternate.

    Turns that say more than text (thoughts, tool calls), and one that is learned beside one that is not, are not joined.
    """
    return drop_crooked([_merged(group) if _crooked(group) else group for group in groups])


def _merged(group: Group) -> Group:
    """Neighbours joined; what the assistant said at the end of the prompt becomes the beginning of the answers."""
    prompt, answers = group.prompt.content, [c.content for c in group.completions]
    turns = all(not isinstance(a, str) and a[0].role == "assistant" for a in answers)
    if answers and turns and not isinstance(prompt, str) and prompt[-1].role == "assistant" and not prompt[-1].prefill:
        start = next((i for i in range(len(prompt), 0, -1) if prompt[i - 1].role != "assistant"), 0)
        prompt, answers = prompt[:start], [(*prompt[start:], *a) for a in answers]
    return replace(
        group,
        prompt=replace(group.prompt, content=_joined(prompt), id=""),
        completions=tuple(replace(c, content=_joined(a)) for c, a in zip(group.completions, answers, strict=True)),
    )


def _crooked(group: Group) -> str:
    prompt = group.prompt.content
    for completion in group.completions or (None,):
        turns = () if isinstance(prompt, str) else prompt
        if completion is not None and not isinstance(completion.content, str):
            turns = (*(turns[:-1] if turns and turns[-1].prefill else turns), *completion.content)
        roles = [m.role for m in turns]
        said = roles[1:] if roles[:1] == ["system"] else roles
        if "tool" not in said and said != [("user", "assistant")[i % 2] for i in range(len(said))]:
            return f"turns do not alternate: {', '.join(roles)}"
    return ""


def _joined(content: Content) -> Content:
    if isinstance(content, str):
        return content
    made: list[Message] = []
    for turn in content:
        last = made[-1] if made else None
        if last and last.role == turn.role and last.train == turn.train and not (last.extra or turn.extra):
            made[-1] = replace(turn, content=f"{last.content}\n\n{turn.content}")
        else:
            made.append(turn)
    return tuple(made)


def decontaminate(groups: Sequence[Group], against: Iterable[str], *, ngram: int = 13) -> Cleaned:
    """Drop groups whose prompt or completions share `ngram` consecutive words with an evaluation text.

    Case and punctuation are ignored. An evaluation text shorter than that counts when it occurs whole.
    Source: the 13-gram overlap of Brown et al. 2020, appendix C.
    """
    if ngram < 1:
        raise UserError(f"{ngram} words make no overlap", where="ngram", fix="use 1 or more")
    grams = Grams(against, ngram)

    def verdict(index: int, group: Group) -> str:
        hit = next(
            (found for text in (group.prompt.text, *(c.text for c in group.completions)) if (found := grams.find(text))), ""
        )
        return f"shares '{hit}' with the evaluation prompts" if hit else ""

    return _sift(groups, verdict)


def check_options(options: Mapping[str, Any], where: str) -> None:
    """Raises UserError for an unknown key or value of a source's `clean:`."""
    for key in options:
        one_of("key", key, KEYS, where=where)
    choices = {
        "turns": ("keep", "drop", "merge"), "duplicates": ("exact", "near"), "by": ("group", "prompt"),
        "identical": ("drop", "keep"),
    }  # fmt: skip
    for key, known in choices.items():
        if key in options:
            one_of("value", options[key], known, where=f"{where}.{key}")
    threshold, ngram = options.get("threshold", 1), options.get("ngram", 1)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        fix = "use a number above 0 and up to 1"
        raise UserError(f"{threshold!r} is not a similarity", where=f"{where}.threshold", fix=fix)
    if isinstance(ngram, bool) or not isinstance(ngram, int) or ngram < 1:
        raise UserError(f"{ngram!r} is not a number of words", where=f"{where}.ngram", fix="use 1 or more")
    against = options.get("against", ())
    if not isinstance(against, str | Mapping | list | tuple):
        fix = "name a file, a source, or a list of them"
        raise UserError(f"{against!r} is not a source", where=f"{where}.against", fix=fix)


def clean(groups: Sequence[Group], options: Mapping[str, Any], against: Sequence[str] = ()) -> tuple[list[Group], str]:
    """Everything that a source's `clean:` asks for, and one phrase that counts what went.

    `turns`: keep, drop or merge those that do not alternate; `duplicates`: exact or near (with `threshold`), `by`: group or
    prompt; `identical`: drop; `ngram`: overlap with `against`.
    """
    by = options.get("by", "group")
    passes: list[tuple[str, Callable[[Sequence[Group]], Cleaned]]] = []
    if options.get("turns", "keep") != "keep":
        passes.append(("crooked conversations", drop_crooked if options["turns"] == "drop" else merge_turns))
    if options.get("identical") == "drop":
        passes.append(("identical pairs", drop_identical))
    if "duplicates" in options:
        passes.append(("duplicates", lambda g: drop_exact(g, by=by)))
    if options.get("duplicates") == "near":
        passes.append(("near duplicates", lambda g: drop_near(g, by=by, threshold=options.get("threshold", 0.8))))
    if against:
        passes.append(("seen in evaluation", lambda g: decontaminate(g, against, ngram=options.get("ngram", 13))))
    said = []
    left: Sequence[Group] = groups
    for name, step in passes:
        result = step(left)
        said.append(f"{len(result.removed)} {name}")
        left = result.groups
    return list(left), ", ".join(said)
