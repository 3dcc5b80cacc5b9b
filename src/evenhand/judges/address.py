"""A server's address and what is sent with every request, with secrets named and never written.

`${NAME}` in the address or in a text under `extra` stands for an environment variable: files, keys and messages hold the name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from evenhand.errors import UserError

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECRET = re.compile(
    r"(?i)(api|access|auth|private|secret|subscription)[-_]?key|secret|passw|passphrase|authorization|credential|signature"
    r"|(auth|access|api|bearer|session|refresh)[-_]?token(?!s)"
)
_SECRET_PARAMETERS = ("key", "token", "sig", "code", "pwd")
_SECRET_VALUE = re.compile(r"\b(?:sk|pk|rk|hf|gsk|xai|ghp|AIza)[-_][\w-]{12,}|\bBearer\s+\S{8,}")


def check_address(url: str, where: str = "judge.endpoint") -> None:
    """Raises UserError for what is no http address, and for a secret written out in it. The message never shows the address."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number, brackets that do not close
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f]", url):
        fix = "for example http://localhost:8000/v1"
        raise UserError("the address is not http://HOST or https://HOST", where=where, fix=fix)
    password = parts.password and not _VARIABLE.fullmatch(parts.password)
    named = any(
        (_SECRET.search(k) or k.lower() in _SECRET_PARAMETERS) and v and not _VARIABLE.fullmatch(v)
        for k, v in parse_qsl(parts.query, keep_blank_values=True)
    )
    if password or named or _SECRET_VALUE.search(url):
        raise _written(where)


def check_extra(extra: Mapping[str, Any], key: str = "", where: str = "judge.extra") -> None:
    """Raises UserError for a secret written out under `extra`: by its name, by its form, or because it is the `key` itself."""
    for path, value in _texts(extra, where):
        name = path.rpartition(".")[2]
        whole = _VARIABLE.sub("", value)
        if whole.strip() and ((_SECRET.search(name) and whole == value) or _SECRET_VALUE.search(value) or (key and key in value)):
            raise _written(path)


def named_key(key_env: str) -> str:
    """The key that the environment variable holds; empty where none is named. UserError where it is not set."""
    key = os.environ.get(key_env, "").strip() if key_env else ""
    if key_env and not key:
        raise UserError("is not set", where=f"${key_env}", fix=f"set {key_env}, or remove `key_env`")
    return key


def filled(value: Any, used: list[str]) -> Any:
    """`value` with every `${NAME}` replaced from the environment; what was put in is added to `used`."""
    if isinstance(value, Mapping):
        return {k: filled(v, used) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [filled(v, used) for v in value]
    return _VARIABLE.sub(lambda m: _variable(m.group(1), used), value) if isinstance(value, str) else value


def joined(url: str, path: str) -> str:
    """The address with `path` behind its own path, before its query.

    >>> joined("https://host/v1/?api-version=1", "chat/completions")
    'https://host/v1/chat/completions?api-version=1'
    """
    parts = urlsplit(url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{path}").geturl()


def _variable(name: str, used: list[str]) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise UserError(f"the environment variable {name} is not set", where="judge", fix=f"set {name}")
    used.append(value)
    return value


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, path)
    elif isinstance(value, str):
        yield path, value


def _written(where: str) -> UserError:
    return UserError(
        "a secret is written out here", where=where, why="it would stand in the run directory, in logs and in keys of answers",
        fix="put it into an environment variable and write ${NAME}; a key for the Authorization header is named by `key_env`",
    )  # fmt: skip
