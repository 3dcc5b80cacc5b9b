"""The canonical file form of groups: one JSON object per line, lossless, same bytes for the same groups.

Every artifact that holds groups (datasets, rollouts, generations) is such a file. A line looks like::

    {"prompt": "Hi", "id": "9f..", "meta": {}, "completions": [{"content": "Hello"}], "scores": [null], "parts": {}}

NaN is written as null and infinities as "inf" and "-inf", so that the file is valid JSON; floats keep every bit.
"""

from __future__ import annotations

import gzip
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evenhand.data.decode import byte_lines, check_regular
from evenhand.data.values import as_json, shown
from evenhand.errors import UserError
from evenhand.store.whole import whole
from evenhand.types import Completion, Content, Finish, Group, Message, Prompt, Turn

FIELDS = ("prompt", "id", "meta", "completions", "scores", "parts")


def group_to_json(group: Group) -> dict[str, Any]:
    """The canonical JSON object of a group.

    >>> group_to_json(Group(prompt=Prompt(content="Hi", id="a"), completions=(Completion(content="Yo"),)))["scores"]
    [None]
    """
    return {
        "prompt": _content_to_json(group.prompt.content),
        "id": group.prompt.id,
        "meta": dict(group.prompt.meta),
        **({"options": dict(group.prompt.options)} if group.prompt.options else {}),
        "completions": [_completion_to_json(c) for c in group.completions],
        "scores": [_number_to_json(s) for s in group.scores],
        "parts": {name: [_number_to_json(v) for v in values] for name, values in group.parts.items()},
        **({"policy_version": group.policy_version} if group.policy_version is not None else {}),
    }


class NotCanonical(ValueError):
    """A row that `group_to_json` does not write; `key` is the place in it."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(f"'{key}' {what}")
        self.key = key


def group_from_json(row: Mapping[str, Any]) -> Group:
    """The inverse of `group_to_json`; raises NotCanonical on a row of another form."""
    if not isinstance(row, Mapping):
        raise NotCanonical("row", f"is {shown(row)}, not an object")
    if missing := [key for key in FIELDS if key not in row]:
        raise NotCanonical(missing[0], "is missing")
    text, lists, objects = (str, "text"), (list | tuple, "a list"), (Mapping, "an object")
    answers, parts = _kind(row["completions"], lists, "completions"), _kind(row["parts"], objects, "parts")
    try:
        return Group(
            prompt=Prompt(
                content=_content_from_json(row["prompt"], "prompt"),
                id=_kind(row["id"], text, "id"),
                meta=_json(row["meta"], "meta"),
                options=_json(row.get("options", {}), "options"),
            ),
            completions=tuple(_completion_from_json(c, f"completions[{i}]") for i, c in enumerate(answers)),
            scores=_numbers(row["scores"], "scores"),
            parts={name: _numbers(values, f"parts.{name}") for name, values in parts.items()},
            policy_version=_version(row.get("policy_version")),
        )
    except NotCanonical:
        raise
    except ValueError as error:  # lengths that differ, or text that no encoding holds
        raise NotCanonical("completions", str(error)) from None


def _kind(value: Any, kind: tuple[Any, str], key: str) -> Any:
    """The value, which must be of a kind: a type and what to call it; true and false are no numbers."""
    if not isinstance(value, kind[0]) or (isinstance(value, bool) and kind[0] is not bool):
        raise NotCanonical(key, f"is {shown(value)}, not {kind[1]}")
    return value


def _version(value: Any) -> int | None:
    return None if value is None else _kind(value, (int, "a number of steps"), "policy_version")


def _json(value: Any, key: str) -> Any:
    """An object of which every value can be written again."""
    try:
        return as_json(_kind(value, (Mapping, "an object"), key))
    except (TypeError, RecursionError) as error:
        raise NotCanonical(key, str(error)) from None


def _numbers(values: Any, key: str) -> tuple[float, ...]:
    return tuple(_number_from_json(v, key) for v in _kind(values, (list | tuple, "a list"), key))


def write_groups(path: str | Path, groups: Iterable[Group]) -> int:
    """Write groups to `path` (gzip when it ends in .gz) and return how many.

    Atomic: the file appears complete or not at all. Deterministic: equal groups give equal bytes.
    """
    return write_rows(path, (group_to_json(g) for g in groups))


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write JSON objects as JSON lines, atomically (see `write_groups`)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with whole(path) as partial, open(partial, "wb") as raw, _compressor(path, raw) as out:
        for row in rows:
            out.write(_line(row))
            count += 1
    return count


def read_groups(path: str | Path) -> list[Group]:
    """Every group of a canonical file, in order. Raises UserError with file and line on a line that is not one."""
    return list(iter_groups(path))


def iter_groups(path: str | Path) -> Iterator[Group]:
    """`read_groups` one at a time, for files larger than memory."""
    path = Path(path)
    check_regular(path)
    if not path.is_file():
        raise UserError("no such file", where=str(path), fix="give a file written by write_groups")
    for number, line in byte_lines(path):  # bytes: a line ends at "\n" only, never at U+2028 or "\r"
        try:
            group = group_from_json(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"not a canonical group ({type(error).__name__}: {error})",
                where=f"{path.name}:{number}",
                fix=f"each line needs {', '.join(FIELDS)}; load other files with evenhand.data.load",
            ) from error
        yield group


def _compressor(path: Path, raw: io.BufferedWriter) -> Any:
    """A gzip layer without a time stamp or name (equal bytes for equal groups), or the plain file."""
    return gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) if path.suffix == ".gz" else raw


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise UserError(f"a value cannot be written as JSON: {error}", where=f"prompt {row.get('id', '?')}") from error
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, as some web texts have: only an escape keeps it
        return json.dumps(row).encode() + b"\n"


def _content_to_json(content: Content) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [_message_to_json(m) for m in content]


def _message_to_json(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.extra:
        row["extra"] = dict(message.extra)
    if not message.train:
        row["train"] = False
    if message.prefill:
        row["prefill"] = True
    return row


def _content_from_json(value: Any, key: str) -> Content:
    if isinstance(value, str):
        return value
    turns = _kind(value, (list | tuple, "text or a list of messages"), key)
    if not turns:
        raise NotCanonical(key, "is an empty list of messages")
    return tuple(_message_from_json(m, f"{key}[{i}]") for i, m in enumerate(turns))


def _message_from_json(value: Any, key: str) -> Message:
    row = _kind(value, (Mapping, "an object"), key)
    text, boolean = (str, "text"), (bool, "true or false")
    return Message(
        _kind(row.get("role"), text, f"{key}.role"),
        _kind(row.get("content"), text, f"{key}.content"),
        _extra_from_json(row.get("extra", {}), f"{key}.extra"),
        _kind(row.get("train", True), boolean, f"{key}.train"),
        _kind(row.get("prefill", False), boolean, f"{key}.prefill"),
    )


def _extra_from_json(value: Any, key: str) -> Mapping[str, Any]:
    row = _json(value, key)
    for name, said in row.items():
        if name == "tool_calls":
            for call in _kind(said, (list | tuple, "a list"), f"{key}.{name}"):
                _kind(call, (Mapping, "an object"), f"{key}.{name}")
        else:
            _kind(said, (str, "text"), f"{key}.{name}")
    return row


def _completion_to_json(completion: Completion) -> dict[str, Any]:
    row: dict[str, Any] = {"content": _content_to_json(completion.content)}
    if completion.tokens is not None:
        row["tokens"] = list(completion.tokens)
    if completion.behaviour_logp is not None:
        row["behaviour_logp"] = [_number_to_json(v) for v in completion.behaviour_logp]
    if completion.finish is not Finish.GIVEN:
        row["finish"] = completion.finish.value
    if completion.turns:
        row["turns"] = [turn_to_json(turn) for turn in completion.turns]
    if completion.failed:
        row["failed"] = completion.failed
    return row


def turn_to_json(turn: Turn) -> dict[str, Any]:
    """A turn of an answer; the environment's have no reward."""
    row: dict[str, Any] = {"messages": [_message_to_json(m) for m in turn.messages], "tokens": turn.tokens}
    return row | ({"reward": _number_to_json(turn.reward)} if turn.written else {})


def turns_from_json(value: Any, key: str = "turns") -> tuple[Turn, ...]:
    """The inverse of `turn_to_json`, for all turns of an answer."""
    turns = []
    for i, row in enumerate(_kind(value, (list | tuple, "a list"), key)):
        place = f"{key}[{i}]"
        given = _kind(row, (Mapping, "an object"), place)
        messages = _kind(given.get("messages"), (list | tuple, "a list"), f"{place}.messages")
        if type(count := given.get("tokens")) is not int or count < 0:
            raise NotCanonical(f"{place}.tokens", f"is {shown(count)}, not a number of tokens")
        said = tuple(_message_from_json(m, f"{place}.messages") for m in messages)
        reward = _number_from_json(given["reward"], f"{place}.reward") if "reward" in given else 0.0
        turns.append(Turn(messages=said, tokens=count, written="reward" in given, reward=reward))
    return tuple(turns)


def _completion_from_json(value: Any, key: str) -> Completion:
    row = _kind(value, (Mapping, "an object"), key)
    tokens, logp = row.get("tokens"), row.get("behaviour_logp")
    finish = row.get("finish", Finish.GIVEN.value)
    ids = _kind(() if tokens is None else tokens, (list | tuple, "a list"), f"{key}.tokens")
    if not all(type(t) is int and 0 <= t < 1 << 31 for t in ids):
        raise NotCanonical(f"{key}.tokens", "holds what is no token id")
    if logp is not None and (tokens is None or not isinstance(logp, list | tuple) or len(logp) != len(tokens)):
        raise NotCanonical(f"{key}.behaviour_logp", "has not one value per token")
    if not isinstance(finish, str) or finish not in set(Finish):
        raise NotCanonical(f"{key}.finish", f"is {shown(finish)}, not {' or '.join(Finish)}")
    turns = turns_from_json(row.get("turns", ()), f"{key}.turns")
    if turns and sum(turn.tokens for turn in turns) != len(ids):
        raise NotCanonical(f"{key}.turns", "have not the answer's tokens")
    return Completion(
        turns=turns,
        failed=_kind(row.get("failed", ""), (str, "text"), f"{key}.failed"),
        content=_content_from_json(row.get("content"), f"{key}.content"),
        tokens=None if tokens is None else tuple(tokens),
        behaviour_logp=None if logp is None else _numbers(logp, f"{key}.behaviour_logp"),
        finish=Finish(finish),
    )


def _number_to_json(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return ("inf" if value > 0 else "-inf") if math.isinf(value) else value


def _number_from_json(value: Any, key: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not (isinstance(value, int | float) or value in ("inf", "-inf")):
        raise NotCanonical(key, f"holds {shown(value)}, which is no number")
    try:
        return float(value)
    except OverflowError:
        raise NotCanonical(key, "holds a number of hundreds of digits") from None
