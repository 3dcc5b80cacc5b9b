"""One message of a conversation as public data write it: role, text, thoughts, tool calls, weight. Nothing it says is dropped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from evenhand.data.values import half_character, listed, shown, shown_name
from evenhand.errors import UserError, did_you_mean
from evenhand.types import Message

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""Names of roles found in public data and what they are called here."""
THOUGHTS = ("reasoning_content", "thinking", "reasoning", "thought", "thoughts")
"""Keys of a message that hold what the assistant thought before it spoke; here and in templates it is the first."""
WEIGHTS = ("weight", "train", "training", "loss")
"""Keys of a message that say whether it is learned: true or 1, false or 0."""
LINKS = ("tool_call_id", "name")
"""Keys that say which call a tool answers, and who speaks. They go to the template, which may leave them out."""
MEDIA = ("image", "images", "image_url", "video", "videos", "audio", "audios", "input_audio")
"""Keys of messages and rows that hold what a language model cannot read."""
UNKNOWN = (
    "refusal",
    "prefix",
    "train_detail",
    "training_detail",
    "reasoning_details",
    "tool_plan",
    "tool_responses",
    "functions",
)
"""Keys with a meaning that nothing here gives them: refused unless they are empty."""

Bad = Callable[..., UserError]
"""Makes the error for the field that a message stands in."""


def read_message(item: Any, place: str, bad: Bad, *, empty: bool = False) -> Message:
    """A message as {"role", "content"} or {"from", "value"}, its role in its usual name, `place` its name in errors.

    Keys that are null, blank, false or empty say nothing. Raises `bad` for what cannot be used: images, a weight between 0
    and 1, an unknown role.
    """
    if not isinstance(item, Mapping):
        raise bad(f"{place}: expected an object with role and content, found {shown(item)}")
    role = _role(item, place, bad)
    parts = _Parts(place, bad)
    text = parts.read(item.get("content", item.get("value")))
    extra = _extra(item, role, place, bad, parts)
    if text is None and "tool_calls" in extra:
        text = ""
    if not isinstance(text, str):
        raise bad(f"{place}: expected text, found {shown(text)}", fix="only text turns can be trained on")
    if not empty and not text.strip() and "tool_calls" not in extra:
        raise bad(f"{place} ({role}) is empty")
    prefill = ROLES[role.lower()] == "assistant" and item.get("prefix") is True
    return Message(ROLES[role.lower()], _whole(text, bad), extra, _weight(item, role, place, bad), prefill)


def _role(item: Mapping[str, Any], place: str, bad: Bad) -> str:
    role = item.get("role", item.get("from"))
    if not isinstance(role, str):
        raise bad(f"{place} has no role (keys: {listed(item)})", fix="give role and content")
    if role.lower() not in ROLES:
        raise bad(f"{place} has the unknown role '{shown_name(role)}'", fix=did_you_mean(shown_name(role), ROLES))
    return role


def _whole(text: str, bad: Bad) -> str:
    if found := half_character(text):
        raise bad(found)
    return text


class _Parts:
    """Content given in parts, as newer chat interfaces write it: text is joined; thoughts and tool calls are kept apart."""

    def __init__(self, place: str, bad: Bad) -> None:
        self.thoughts: list[str] = []
        self.calls: list[Any] = []
        self._place, self._bad = place, bad

    def read(self, content: Any) -> Any:
        """The text of a content; anything but a list of parts is given back as it is."""
        if not isinstance(content, list | tuple) or not all(isinstance(p, Mapping) for p in content):
            return content
        return "".join(self._part(part) for part in content)

    def _part(self, part: Mapping[str, Any]) -> str:
        kind = part.get("type")
        if kind == "thinking" and (thought := part.get("thinking")):
            self.thoughts.append(thought if isinstance(thought, str) else str(self.read(thought)))
            return ""
        if kind == "tool_use":
            self.calls.append({"id": part.get("id"), "name": part.get("name"), "arguments": part.get("input")})
            return ""
        is_text = kind is None or (isinstance(kind, str) and kind.endswith("text"))
        if is_text and isinstance(part.get("text"), str) and not any(part.get(key) for key in MEDIA):
            return part["text"]
        what = f"a part of the kind {shown(kind)}" if kind is not None else f"a part with {listed(part) or 'nothing'}"
        raise self._bad(f"{self._place}: {what} is not text", fix="only text turns can be trained on")


def _extra(item: Mapping[str, Any], role: str, place: str, bad: Bad, parts: _Parts) -> dict[str, Any]:
    """What a message says beside its text, under the names that chat templates read."""
    speaks = ROLES[role.lower()] == "assistant"
    for key in (*MEDIA, *UNKNOWN):
        if key in item and _says(item[key]) and not (key == "prefix" and speaks and item[key] is True):
            raise bad(f"{place}: '{key}' cannot be used ({shown(item[key])})", fix="only text turns can be trained on")
    made: dict[str, Any] = {}
    if thoughts := _thoughts(item, place, bad, parts):
        made["reasoning_content"] = thoughts
    if calls := _calls(item, place, bad, parts):
        made["tool_calls"] = calls
    if made and not speaks:
        raise bad(f"{place}: {' and '.join(made)} in a turn of the {role}", fix="they belong to the assistant's turns")
    for key in LINKS:
        if _says(item.get(key)):
            if not isinstance(item[key], str):
                raise bad(f"{place}: expected '{key}' as text, found {shown(item[key])}")
            made[key] = _whole(item[key], bad)
    return made


def _says(value: Any) -> bool:
    """Whether the value of a key means anything: null, false, blank and empty do not."""
    return bool(value.strip()) if isinstance(value, str) else bool(value)


def _thoughts(item: Mapping[str, Any], place: str, bad: Bad, parts: _Parts) -> str:
    found = {key: item[key] for key in THOUGHTS if key in item and _says(item[key])}
    if parts.thoughts:
        found["content"] = "\n\n".join(parts.thoughts)
    for key, value in found.items():
        if not isinstance(value, str):
            raise bad(f"{place}: expected '{key}' as text, found {shown(value)}")
    if len(set(found.values())) > 1:
        raise bad(f"{place}: {' and '.join(found)} say different things", fix="keep one of them")
    return _whole(next(iter(found.values()), ""), bad)


def _calls(item: Mapping[str, Any], place: str, bad: Bad, parts: _Parts) -> list[dict[str, Any]]:
    """Tool calls in the form of OpenAI's interface, their arguments as an object where they are one."""
    given = item.get("tool_calls") or ()
    single = item.get("function_call")
    if not isinstance(given, list | tuple):
        raise bad(f"{place}: expected 'tool_calls' as a list, found {shown(given)}")
    calls = [*given, *([single] if _says(single) else []), *parts.calls]
    return [_call(call, f"{place}, tool call {index}", bad) for index, call in enumerate(calls, 1)]


def _call(call: Any, place: str, bad: Bad) -> dict[str, Any]:
    inner = call.get("function") or call if isinstance(call, Mapping) else call
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str) or not inner["name"].strip():
        raise bad(f"{place}: expected a function with its name and arguments, found {shown(call)}")
    arguments = inner.get("arguments")
    if isinstance(arguments, str):
        arguments = _object(arguments)
    if not isinstance(arguments, Mapping | str | None):
        raise bad(f"{place}: expected arguments as an object, found {shown(arguments)}")
    function = {"name": inner["name"], "arguments": {} if arguments in (None, "") else arguments}
    name = call.get("id")
    made = {**({"id": name} if isinstance(name, str) and name else {}), "type": "function", "function": function}
    return _clean(made, place, bad)


def _object(text: str) -> Any:
    """Arguments as an object, which templates write in their own way; text that spells none stays text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, Mapping) else text


def _clean(made: dict[str, Any], place: str, bad: Bad) -> dict[str, Any]:
    """The same, once it is sure that a template can write it."""
    try:
        json.dumps(made, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise bad(f"{place} cannot be written as JSON ({error})") from None
    return made


def _weight(item: Mapping[str, Any], role: str, place: str, bad: Bad) -> bool:
    """Whether a turn may be learned. Turns that are not the assistant's never are, and may say so."""
    found = {key: item[key] for key in WEIGHTS if item.get(key) is not None}
    if not isinstance(found.get("loss", True), bool):
        found.pop("loss")  # a measurement of somebody's, no wish
    for key, value in found.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise bad(
                f"{place}: expected '{key}' to be 0 or 1, found {shown(value)}", fix="a turn is learned whole or not at all"
            )
        if value and ROLES[role.lower()] != "assistant":
            raise bad(f"{place}: '{key}' asks to learn a turn of the {role}", fix="only the assistant's turns are learned")
    if len(set(map(bool, found.values()))) > 1:
        raise bad(f"{place}: {' and '.join(found)} contradict each other", fix="keep one of them")
    return all(found.values())


def schemas(value: Any, bad: Bad) -> list[dict[str, Any]]:
    """Tools as JSON schemas in the form that templates take, from a list of them or its JSON text; [] for none."""
    if isinstance(value, str):
        value = _tools(value, bad)
    if not isinstance(value, list | tuple):
        raise bad(f"expected a list of tools, found {shown(value)}")
    made = []
    for index, tool in enumerate(value, 1):
        function = tool.get("function") or tool if isinstance(tool, Mapping) else tool
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise bad(f"tool {index}: expected a schema with a name, found {shown(tool)}")
        made.append(_clean({"type": "function", "function": dict(function)}, f"tool {index}", bad))
    return made


def _tools(text: str, bad: Bad) -> Any:
    if not text.strip():
        return []
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise bad(f"expected a list of tools as JSON, found {shown(text)}") from None
