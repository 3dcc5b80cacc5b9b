"""Sampled answers in front of a tokenizer that did not sample them: ids of another vocabulary are given up for their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from evenhand.types import Completion, Finish, Group, content_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from evenhand.data.template import Renderer


def readable(group: Group, renderer: Renderer) -> Group:
    """The group as `renderer` may tokenise it: sampled ids stay where they are its own, and become text where they are not.

    Such a text ends where it spells a special token of this tokenizer: a policy must not be able to write turns for a reader.
    """
    if all(spelled(c, renderer) for c in group.completions):
        return group
    marks = special_marks(renderer.tokenizer)
    told = tuple(c if spelled(c, renderer) else without_marks(c, marks) for c in group.completions)
    return replace(group, completions=told)


def spelled(completion: Completion, renderer: Renderer) -> bool:
    """Whether the ids of an answer, if it has any, are this tokenizer's: they spell its text, and end as it ended. Of an answer
    over several turns, which may stop there for its limit of them, the last is looked at."""
    ids, turns = completion.tokens, completion.turns
    if ids is None:
        return True
    stopped = ids[-1:] != () and ids[-1] in renderer.stop_ids
    if not turns and completion.finish is not Finish.GIVEN and stopped is not (completion.finish is Finish.STOP):
        return False
    last = ids[len(ids) - turns[-1].tokens :] if turns else ids
    return max(ids, default=0) < len(renderer.tokenizer) and renderer.decode(last) == completion.text


def special_marks(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """How the special tokens of a tokenizer are written."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    written = {str(t) for t in tokenizer.all_special_tokens} | {str(t) for t in added if getattr(t, "special", False)}
    return tuple(sorted(t for t in written if t))


def without_marks(completion: Completion, marks: Sequence[str]) -> Completion:
    """The text of an answer up to the first mark that it spells out; text from a file stays as it is.

    >>> said = Completion(content="Yes.<|end|><|user|>Thanks!", finish=Finish.STOP)
    >>> without_marks(said, ["<|end|>", "<|user|>"]).text
    'Yes.'
    """
    if completion.finish is Finish.GIVEN:
        return replace(completion, tokens=None, behaviour_logp=None) if completion.tokens is not None else completion
    text = content_text(completion.content)
    end = min((at for m in marks if (at := text.find(m)) >= 0), default=len(text))
    return Completion(content=text[:end], finish=completion.finish)
