"""`evenhand generate`, `evenhand chat` and `evenhand score`: a model in hand."""

from __future__ import annotations

COMMANDS = ()
