"""What a figure is on the page: a drawing for wide and for narrow screens, the sentence under it, and its numbers."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from evenhand.display import csv_cell
from evenhand.errors import UserError
from evenhand.report.svg import Drawing

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotFigure:
    """One figure. `caption` says what it shows and how to read it; `csv` holds the numbers that were drawn."""

    name: str
    title: str
    caption: str
    wide: Drawing
    narrow: Drawing | None = None
    csv: str

    def _repr_svg_(self) -> str:
        """The drawing, which notebooks show."""
        return self.wide.standalone

    def save(self, path: str | Path) -> Path:
        """The drawing as an SVG file, or with the suffix .csv its numbers."""
        path = Path(path)
        if path.suffix not in (".svg", ".csv"):
            raise UserError(f"'{path.suffix}' is no kind of figure", where=str(path), fix="use .svg, or .csv for its numbers")
        path.write_text(self.csv if path.suffix == ".csv" else self.wide.standalone, encoding="utf-8")
        return path


def slug(text: str) -> str:
    """A name as an id of the page.

    >>> slug("heldout/loss"), slug("dpo beta=0.1")
    ('heldout-loss', 'dpo-beta-0-1')
    """
    return "".join(c if c.isalnum() else "-" for c in text)


def data_link(text: str, kind: str) -> str:
    """A link that holds its own content."""
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}"


Rows = tuple[list[str], list[list[Any]]]
"""A header and the rows under it."""


def table(columns: Mapping[str, Callable[[T], Any]], items: Iterable[T]) -> Rows:
    """A row per item: `columns` say, by name, what an item has there."""
    return list(columns), [[cell(item) for cell in columns.values()] for item in items]


def ends(name: str, pair: Callable[[T], Sequence[float] | None]) -> dict[str, Callable[[T], float | None]]:
    """Two columns: the ends of an interval, where an item has it."""
    end = lambda item, side: None if (found := pair(item)) is None else found[side]  # noqa: E731
    return {f"{name}_low": partial(end, side=0), f"{name}_high": partial(end, side=1)}


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A CSV file as text; None becomes an empty field, floats keep six significant digits, nothing is taken for a formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([csv_cell(name) for name in header])
    writer.writerows([_field(value) for value in row] for row in rows)
    return buffer.getvalue()


def _field(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else csv_cell(value)
