"""What may be shown to a person: control characters spelled out, secrets struck out.

Texts of models and data, and errors that quote them, may hold escape sequences that move a terminal's cursor, change its title
or turn the reading direction; servers echo keys. Everything that is printed passes through here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]")
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_SHORTEST = 8
"""Fewer characters are no secret: striking them out would only spoil the text. A cut secret shows at least so many."""
STRUCK = "***"


def spelled_out(text: str) -> str:
    r"""`text` with control characters, marks of the reading direction and lone surrogates as escapes; lines and tabs stay.

    >>> spelled_out("red \x1b[31m, \u202ereversed\r\n") == r"red \x1b[31m, \u202ereversed" + "\n"
    True
    """
    return _CONTROL.sub(lambda m: _escape(ord(m.group())), text.replace("\r\n", "\n"))


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def hidden(text: str, secrets: Iterable[str]) -> str:
    """`text` without the secrets: whole, escaped as in JSON or a URL, and cut short (their first 8 characters or more).

    >>> hidden("Bearer sk-12345678 was refused (sk-1234567", ["sk-12345678"])
    'Bearer *** was refused (***'
    """
    for secret in sorted({s for s in secrets if s}, key=len, reverse=True):
        for form in dict.fromkeys((secret, json.dumps(secret)[1:-1], quote(secret, safe=""))):
            text = text.replace(form, STRUCK)
            if len(form) > _SHORTEST:
                text = _without_beginnings(text, form)
    return text


def _without_beginnings(text: str, secret: str) -> str:
    head, parts, start = secret[:_SHORTEST], [], 0
    while (at := text.find(head, start)) >= 0:
        end = at + _SHORTEST
        while end < len(text) and end - at < len(secret) and text[end] == secret[end - at]:
            end += 1
        parts.append(text[start:at] + STRUCK)
        start = end
    return "".join([*parts, text[start:]])


def environment_secrets() -> list[str]:
    """Values of environment variables whose names end like a secret's (..._KEY, ..._TOKEN, ...); paths are none."""
    values = [v.strip() for name, v in os.environ.items() if _SECRET_NAME.search(name)]
    return [v for v in values if len(v) >= _SHORTEST and v[0] not in "/~." and not re.search(r"\s", v)]


def shown(text: str) -> str:
    """Text as it may be printed: nothing that acts on a terminal, no secret of this environment."""
    return spelled_out(hidden(text, environment_secrets()))


def in_bytes(size: float) -> str:
    """A number of bytes for people.

    >>> in_bytes(999), in_bytes(123_456), in_bytes(5e7), in_bytes(3 * 2**30)
    ('999 B', '121 KiB', '48 MiB', '3.0 GiB')
    """
    for unit, factor, digits in (("GiB", 2**30, 1), ("MiB", 2**20, 0), ("KiB", 2**10, 0)):
        if size >= (0.1 if unit == "GiB" else 1) * factor:
            return f"{size / factor:.{digits}f} {unit}"
    return f"{size:.0f} B"


def csv_cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula behind an apostrophe, which shows it as it is; all else unchanged.

    >>> csv_cell("=1+1"), csv_cell("dpo"), csv_cell(-0.5)
    ("'=1+1", 'dpo', -0.5)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def quantile(lengths: Sequence[int], percent: int) -> int:
    """The least of the lengths that so many per cent of them do not exceed; 0 of none.

    >>> quantile([4, 1, 3, 2], 50), quantile([4, 1, 3, 2], 51)
    (2, 3)
    """
    ordered = sorted(lengths) or [0]
    return ordered[max(-(-len(ordered) * percent // 100) - 1, 0)]


def quantiles(lengths: Sequence[int]) -> str:
    """Median, 95%, 99% and the longest.

    >>> quantiles(range(1, 101))
    'median 50, 95% 95, 99% 99, longest 100'
    """
    if not lengths:
        return "none"
    at = [quantile(lengths, percent) for percent in (50, 95, 99, 100)]
    return f"median {at[0]}, 95% {at[1]}, 99% {at[2]}, longest {at[3]}"
