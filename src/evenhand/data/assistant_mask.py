"""Which tokens of a rendered conversation the assistant wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evenhand.data.encode import Encoder
from evenhand.errors import UserError
from evenhand.types import Message

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

Chat = Callable[[Sequence[Message], bool], str]
"""Renders messages; True adds the generation prompt; without it, text behind the last terminator is taken off."""


def assistant_mask(
    encoder: Encoder,
    messages: Sequence[Message],
    text: str,
    ids: Sequence[int],
    *,
    chat: Chat,
    options: Mapping[str, Any],
    stop_ids: frozenset[int],
    where: str,
) -> tuple[bool, ...]:
    """True for each of `ids` that the assistant wrote, the stop token of each of its turns included.

    `text` is the rendering of `messages` and `ids` its tokens. A template with {% generation %} blocks says it itself;
    for others, a turn is the difference between rendering up to it and rendering with it. Raises UserError when the
    marks cover nothing, or when the template changes earlier turns once a later one is there.
    """
    template = encoder.tokenizer.chat_template
    marked = isinstance(template, str) and _GENERATION.search(template)
    mask = _marked(encoder, messages, ids, options) if marked else _by_prefix(encoder, messages, text, chat, where)
    if mask is None or len(mask) != len(ids):
        raise UserError(
            "the conversation tokenises differently with the template's {% generation %} marks",
            where=where,
            fix="check the marks of the chat template, or use a template without them",
        )
    if not any(mask):
        raise UserError(
            "no token of the conversation is the assistant's",
            where=where,
            why="nothing would be learned, and the loss would look fine",
            fix="check the {% generation %} marks of the chat template and the roles of the turns",
        )
    return _with_stops(mask, ids, stop_ids)


def _marked(
    encoder: Encoder, messages: Sequence[Message], ids: Sequence[int], options: Mapping[str, Any]
) -> tuple[bool, ...] | None:
    out = encoder.tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        tokenizer_kwargs={"verbose": False},
        **options,
    )
    if tuple(out["input_ids"][: len(ids)]) != tuple(ids):
        return None
    return tuple(bool(m) for m in out["assistant_masks"][: len(ids)])


def _by_prefix(encoder: Encoder, messages: Sequence[Message], text: str, chat: Chat, where: str) -> tuple[bool, ...]:
    spans = []
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before, after = chat(messages[:index], True), chat(messages[: index + 1], False)
        if not (text.startswith(before) and text.startswith(after)):
            raise UserError(
                f"the chat template rewrites turn {index + 1} once a later turn follows",
                where=where,
                why="what was rendered up to the turn is then not a prefix of the conversation",
                fix="use supervise: completion, or a template with {% generation %} marks",
            )
        spans.append((len(before), len(after)))
    _, offsets = encoder.offsets(text)
    return tuple(any(start <= a and b <= stop and a < b for start, stop in spans) for a, b in offsets)


def _with_stops(mask: Sequence[bool], ids: Sequence[int], stop_ids: frozenset[int]) -> tuple[bool, ...]:
    """Some templates put the terminator outside of their marks; the model must learn it all the same."""
    return tuple(m or (i > 0 and mask[i - 1] and ids[i] in stop_ids) for i, m in enumerate(mask))
