"""Results as tests write them down: the content of a results.json, of which every part but `arms` may be missing."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from evenhand.report import summary
from evenhand.report.summary import Summary
from evenhand.results.files import parsed, read
from evenhand.results.record_parts import CheckpointChoice, LengthGrid

__all__ = ["cells", "choices", "grid", "parsed", "read", "summarise"]


def summarise(data: dict[str, Any]) -> Summary:
    return summary.summarise(read(data))


def choices(data: dict[str, Any]) -> dict[str, dict[str, CheckpointChoice]]:
    return parsed(dict[str, dict[str, CheckpointChoice]], data)


def cells(page: str, title: str) -> list[list[str]]:
    """The first table below a title of the page: its rows, the heading among them, as the texts of their cells."""
    table = page.split(f"{title}</h3>")[1].split("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("<tr")[1:]]
    return [[unescape(re.sub(r"<div[^>]*>", "; ", cell)) for cell in map(_plain, row)] for row in rows]


def _plain(cell: str) -> str:
    return " ".join(re.sub(r"<(?!div).*?>", "", cell).split())


def grid(data: dict[str, Any]) -> LengthGrid:
    return parsed(LengthGrid, data)
