"""A map of prompts as one self-contained page: a point per prompt, coloured by source or topic, its text beside the pointer."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from evenhand.data.explore import Explored

WIDTH, HEIGHT, MARGIN = 900, 600, 20
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#222255", "#225555", "#663333")
LONGEST = 300
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
svg { width: 100%; height: auto; border: 1px solid #ddd } circle { opacity: .75 } circle:hover { opacity: 1; stroke: #000 }
td, th { text-align: left; padding: .1rem .8rem .1rem 0 }
.dot { display: inline-block; width: .8em; height: .8em; border-radius: 50% }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #161616 } svg { border-color: #444 } }
"""


def page(texts: Sequence[str], sources: Sequence[str], explored: Explored, *, title: str = "Prompts") -> str:
    """The page's HTML. Points are coloured by source where there are several, else by topic."""
    by_source = len(set(sources)) > 1
    groups = list(dict.fromkeys(sources)) if by_source else [", ".join(n) or "no words in common" for n in explored.names]
    number = [groups.index(s) for s in sources] if by_source else [int(t) for t in explored.topic]
    rows = "".join(_row(i, name, number) for i, name in enumerate(groups))
    topics = "".join(_topic(i, explored, sources) for i in range(len(explored.names)))
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style><h1>{escape(title)}</h1>
<p>{len(texts)} prompts by the words they use (TF-IDF, its two leading directions). Near points use the same rare words; distances
across the picture mean little. Point at one to read it.</p>
<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="map of prompts">{_points(texts, explored.points, number)}</svg>
<h2>{"Sources" if by_source else "Topics"}</h2><table>{rows}</table>
{f"<h2>Topics</h2><table><tr><th>words<th>prompts<th>from</tr>{topics}</table>" if by_source else ""}</html>
"""


def _points(texts: Sequence[str], points: np.ndarray, number: Sequence[int]) -> str:
    low, span = points.min(0), np.maximum(np.ptp(points, axis=0), 1e-12)
    size = np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    placed = MARGIN + (points - low) / span * size
    return "".join(
        f'<circle cx="{x:.1f}" cy="{HEIGHT - y:.1f}" r="4" fill="{COLOURS[i % len(COLOURS)]}"><title>{_shown(t)}</title></circle>'
        for (x, y), i, t in zip(placed, number, texts, strict=True)
    )


def _row(i: int, name: str, number: Sequence[int]) -> str:
    dot = f'<span class="dot" style="background:{COLOURS[i % len(COLOURS)]}"></span>'
    return f"<tr><td>{dot}<td>{escape(name)}<td>{number.count(i)}</tr>"


def _topic(i: int, explored: Explored, sources: Sequence[str]) -> str:
    inside = [s for s, t in zip(sources, explored.topic, strict=True) if t == i]
    told = ", ".join(f"{escape(s)} {inside.count(s)}" for s in dict.fromkeys(inside))
    return f"<tr><td>{escape(', '.join(explored.names[i]))}<td>{len(inside)}<td>{told}</tr>"


def _shown(text: str) -> str:
    return escape(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")
