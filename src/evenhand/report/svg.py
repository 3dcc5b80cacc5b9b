"""Matplotlib figures as inline SVG that follows the page's theme, and as stand-alone SVG for papers.

The same figure gives the same bytes: fixed hash salt, no date, text as text. On the page, colours become CSS variables,
ids get the figure's name in front (many figures share one document), and artists tagged with `tag` get a class per arm.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from evenhand.report.style import FAINT, GRID, INK, SOFT, ArmStyle, by_light

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
QUOTE = {'"': "&quot;"}
_RC: dict[Any, Any] = {
    "svg.hashsalt": "evenhand",
    "svg.fonttype": "none",
    "text.parse_math": False,  # an arm may be called "a$b$"
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "axes.edgecolor": FAINT.light,
    "axes.labelcolor": SOFT.light,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID.light,
    "grid.linewidth": 1.0,
    "text.color": INK.light,
    "xtick.color": SOFT.light,
    "ytick.color": SOFT.light,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "path.simplify_threshold": 0.2,
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure twice: `inline` for the page (themed), `standalone` to download (light colours, complete XML)."""

    inline: str
    standalone: str


@dataclass(frozen=True, slots=True)
class Margins:
    """Room around the axes, in pixels."""

    left: float = 52
    right: float = 14
    top: float = 14
    bottom: float = 44


@contextmanager
def canvas(width: float, height: float, margins: Margins) -> Iterator[tuple[Figure, Axes]]:
    """A figure of `width` x `height` CSS pixels at scale 1, drawn under the house style. Sizes of text are pixels too."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        figure.patch.set_visible(False)
        across, down = margins.left + margins.right, margins.top + margins.bottom
        axes = figure.add_axes((margins.left / width, margins.bottom / height, 1 - across / width, 1 - down / height))
        axes.patch.set_visible(False)
        yield figure, axes


def tag(artist: Any, style: ArmStyle, part: str) -> None:
    """Mark an artist as belonging to an arm, so that the page can bring that arm forward. `part` is unique in the figure."""
    artist.set_gid(f"arm{style.index}.{part}")


def render(figure: Figure, name: str, label: str) -> Drawing:
    """`figure` as SVG. `name` is unique on the page; `label` is what a screen reader says. Call inside `canvas`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    plain = re.sub(r"\s*<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    # two decimals of a pixel are enough; only geometry is touched, never text
    plain = re.sub(r'\b(?:d|x|y|transform|points)="[^"]*"', lambda m: re.sub(r"(\d\.\d\d)\d+", r"\1", m.group()), plain)
    return Drawing(inline=_themed(plain, name, label), standalone=plain)


def _themed(svg: str, name: str, label: str) -> str:
    body = svg[svg.index("<svg") :]
    view = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body)
    if view is None:
        raise ValueError(f"figure {name} has no viewBox")
    body = re.sub(
        r"<svg [^>]*>",
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {view.group()} role="img" aria-label="{escape(label, QUOTE)}">',
        body,
        count=1,
    )
    body = re.sub(r'id="arm(\d+)\.[^"]*"', r'class="arm arm\1"', body)
    body = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", body)
    return re.sub(r'style="([^"]*)"', lambda m: f'style="{_css(m.group(1))}"', body)


def _css(style: str) -> str:
    """Colours to variables; the page's font instead of Matplotlib's."""
    inks = by_light()
    style = re.sub(r"#[0-9a-fA-F]{6}\b", lambda m: inks[m.group().lower()].css if m.group().lower() in inks else m.group(), style)
    return re.sub(r"(font: (?:\w+ )*[\d.]+px )[^;]*", r"\1var(--sans)", style)
