"""What an exported folder's card is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evenhand.export.check import Checked
from evenhand.export.subject import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a card is written from. `record` is the content of evenhand.json, `stops` the spelling of the stop tokens."""

    subject: Subject
    record: Mapping[str, Any]
    checked: Checked
    stops: tuple[str, ...]
    license: str | None = None
    adapter: bool = False
