"""What data sets are made of, one row each: how many pairs, and how long prompts, preferred and rejected answers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.report.style import ARMS, INK, SOFT
from evenhand.report.svg import Margins, canvas

PROMPT = ("prompt_length", "prompt", ARMS[0])
PAIRED = (PROMPT, ("preferred_length", "preferred answer", ARMS[2]), ("rejected_length", "rejected answer", ARMS[1]))
ALONE = (PROMPT, ("answer_length", "answer", ARMS[3]))
ROW, BAR, LONGEST_NAME = 58, 0.24, 28


def save(rows: Sequence[Mapping[str, Any]], unit: str, path: Path) -> None:
    """Draws `rows` of `data.describe.statistics` and writes .svg, .png or .pdf; lengths are means, in `unit`."""
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise UserError(f"'{path.suffix}' is no kind of figure", where=str(path), fix="use .svg, .png or .pdf")
    left = 24 + 7 * max(min(len(r["source"]), LONGEST_NAME) for r in rows)
    height = ROW * len(rows) + 84
    with canvas(760, height, Margins(left=left, right=70, top=34, bottom=50)) as (figure, axes):
        figure.patch.set_visible(True)
        figure.patch.set_facecolor("white")
        labelled: set[str] = set()
        for place, row in enumerate(rows):
            bars = PAIRED if row["pairs"] else ALONE
            for n, (column, label, ink) in enumerate(bars):
                y, length = place + (n - (len(bars) - 1) / 2) * BAR, row[column] or 0.0
                axes.barh(y, length, BAR * 0.9, color=ink.light, label=None if label in labelled else label)
                labelled.add(label)
                if length:
                    axes.annotate(f"{length:,g}", (length, y), (4, 0), textcoords="offset points", va="center",
                                  fontsize=9.5, color=SOFT.light)  # fmt: skip
        axes.set_yticks(range(len(rows)), [_label(r) for r in rows], color=INK.light)
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"mean length in {unit}")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=10.5, borderaxespad=0.2)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=144 if path.suffix == ".png" else 72)


def _label(row: Mapping[str, Any]) -> str:
    name = row["source"] if len(row["source"]) <= LONGEST_NAME else f"{row['source'][: LONGEST_NAME - 1]}…"
    counted = f"{row['pairs']:,} pairs" if row["pairs"] else f"{row['groups']:,} rows"
    return f"{name}\n{counted}"
