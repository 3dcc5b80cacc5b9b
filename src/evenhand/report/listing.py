"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text


def listing(
    names: Sequence[str], numbers: Sequence[str], *, last: str = "verdict", title: str = "", about: Sequence[str] = ()
) -> Table:
    """An empty table: columns of names, which fold, of numbers, which do not, and the `last`; `about` stands below it.

    Cells are to be `Text`, not str: a name such as "[bold]" is a name, not markup.
    """
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    table.title = Text(title, style="bold") if title else None
    table.caption = Text(". ".join(text for text in about if text)) if any(about) else None
    for heading in names:
        table.add_column(Text(heading), overflow="fold")
    for heading in numbers:
        table.add_column(Text(heading), justify="right", no_wrap=True)
    if last:
        table.add_column(last, no_wrap=True)
    return table
