"""What a figure is on the page: a drawing for wide and for narrow screens, the sentence under it, and its numbers."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.display import csv_cell
from evenhand.errors import UserError
from evenhand.report.svg import Drawing


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

    @property
    def svg_link(self) -> str:
        return data_link(self.wide.standalone, "image/svg+xml")

    @property
    def csv_link(self) -> str:
        return data_link(self.csv, "text/csv")


def slug(text: str) -> str:
    """A name as an id of the page.

    >>> slug("heldout/loss"), slug("dpo beta=0.1")
    ('heldout-loss', 'dpo-beta-0-1')
    """
    return "".join(c if c.isalnum() else "-" for c in text)


def data_link(text: str, kind: str) -> str:
    """A link that holds its own content."""
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}"


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
