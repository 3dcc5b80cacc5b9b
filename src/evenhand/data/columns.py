"""Columns that belong to a row of any format: tools, arguments of the chat template, and what a language model cannot see."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from evenhand.data.messages import MEDIA, schemas
from evenhand.data.rows import BadRow, Row
from evenhand.data.values import as_json, half_character, shown
from evenhand.types import Group

COLUMNS = ("tools", "chat_template_kwargs")
"""What the chat template is given beside the turns; the names are TRL's."""
_OURS = (
    "conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "continue_final_message",
    "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
    "tokenizer_kwargs", "strftime_now", "raise_exception",
)  # fmt: skip
"""Arguments of `apply_chat_template` that a row may not set."""


def with_columns(row: Row, groups: Sequence[Group]) -> list[Group]:
    """The groups of a row, their prompts with the template's arguments that stand in its columns; raises BadRow.

    A verbatim prompt has no template: tools beside one are refused; a column `tools` that holds no schemas stays in meta there.
    """
    _refuse_media(row)
    if not any(row.has(name) for name in COLUMNS):
        return list(groups)
    return [_with_options(row, group) for group in groups]


def _with_options(row: Row, group: Group) -> Group:
    prompt = group.prompt
    if isinstance(prompt.content, str):
        kept = {name: row.json(name) for name in COLUMNS if row.has(name) and not _speaks(row, name)}
        return replace(group, prompt=replace(prompt, meta={**prompt.meta, **kept})) if kept else group
    options = _arguments(row)
    tools = schemas(row.get("tools"), partial(row.bad, "tools")) if row.has("tools") else []
    options |= {"tools": tools} if tools else {}
    return replace(group, prompt=replace(prompt, options=options, id="")) if options else group


def _speaks(row: Row, name: str) -> bool:
    """Whether a column beside a verbatim prompt is one for the template after all, which raises BadRow; else it is meta."""
    try:
        meant = schemas(row.get(name), partial(row.bad, name)) if name == "tools" else _arguments(row)
    except BadRow:
        return False
    if meant:
        raise row.bad(name, "is for a chat template, but the prompt is verbatim text", fix="style: chat makes it a user's turn")
    return True


def _arguments(row: Row) -> dict[str, Any]:
    """`chat_template_kwargs`; null values, which a table of many rows fills in, say nothing."""
    if not row.has("chat_template_kwargs"):
        return {}
    bad, given = partial(row.bad, "chat_template_kwargs"), row.get("chat_template_kwargs")
    if isinstance(given, str):
        try:
            given = json.loads(given or "{}")
        except (ValueError, RecursionError):
            given = None
    if not isinstance(given, Mapping):
        raise bad(f"expected an object, found {shown(row.get('chat_template_kwargs'))}")
    for key in given:
        if key in _OURS or not str(key).isidentifier():
            raise bad(f"'{key}' is not the row's to set", fix="keep what the template itself asks for, such as enable_thinking")
    try:
        made = {str(k): as_json(v) for k, v in given.items() if v is not None}
        whole = half_character(json.dumps(made, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise bad(str(error)) from None
    if whole:
        raise bad(whole)
    return made


def _refuse_media(row: Row) -> None:
    """Images, sound and video beside the text; `keep` without their column says that they are not wanted."""
    if row.reading.keep is not None:
        return
    for name in MEDIA:
        value = row.data.get(name) if name in row.data and name not in row.reading.columns.values() else None
        if value is not None and value != "" and value != [] and value is not False:
            raise row.bad(
                name, f"holds {shown(value)}, which a language model cannot see",
                why="the text would be learned as if it could do without",
                fix="name the columns to keep (keep: [])",
            )  # fmt: skip
