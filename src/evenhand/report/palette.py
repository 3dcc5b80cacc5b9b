"""Colours. Every arm keeps one colour, one marker and one dash through the whole page; the baseline is grey.

Hues differ in lightness too, so that arms stay apart for colour-blind readers and on paper, and are never only red and green.
Figures are drawn with the light colours; on the page each becomes a CSS variable, so that dark mode needs no second figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ink:
    """One colour of the page: its CSS variable, and its value on light and on dark ground."""

    name: str
    light: str
    dark: str

    @property
    def css(self) -> str:
        return f"var(--{self.name})"


@dataclass(frozen=True, slots=True)
class ArmStyle:
    """How an arm looks everywhere. `index` is its place in the results and its name in classes and ids."""

    index: int
    ink: Ink
    marker: str
    dash: str | tuple[float, tuple[float, ...]]


INK = Ink("ink", "#1a1d23", "#e9e7e2")
SOFT = Ink("soft", "#5a616d", "#a3a9b4")
FAINT = Ink("faint", "#c9ccd2", "#444a55")
GRID = Ink("grid", "#e7e6e2", "#2b3038")
PAPER = Ink("paper", "#ffffff", "#1a1d22")

BASELINE = Ink("arm-base", "#777d88", "#9aa1ad")
ARMS = tuple(
    Ink(f"arm-{i}", light, dark)
    for i, (light, dark) in enumerate(
        [
            ("#1565c0", "#6ab0f7"),  # blue
            ("#d2570f", "#ff9d5c"),  # orange
            ("#007f6b", "#43cdb0"),  # teal
            ("#8e3fb3", "#cf9df0"),  # purple
            ("#967200", "#e3c14b"),  # gold
            ("#c2306d", "#f98cb8"),  # magenta
            ("#4a5bd0", "#a0abff"),  # indigo
            ("#557a05", "#a9cf52"),  # olive
            ("#7d5233", "#d1a783"),  # brown
            ("#0785a0", "#59d2ea"),  # cyan
        ]
    )
)
PHASES = tuple(
    Ink(f"phase-{i}", light, dark)
    for i, (light, dark) in enumerate(
        [
            ("#35507a", "#8fb1e3"),
            ("#7fa3d1", "#4d6fa3"),
            ("#c7a36b", "#d9b77f"),
            ("#8d8f98", "#7b8089"),
            ("#b9868f", "#c99aa3"),
            ("#6b8f85", "#86b3a6"),
        ]
    )
)
ALL = (INK, SOFT, FAINT, GRID, PAPER, BASELINE, *ARMS, *PHASES)

_MARKERS = "osD^vph<>8"
_DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.5, 1.4, 1.5)))


def arm_styles(arms: Iterable[str], baseline: str | None) -> dict[str, ArmStyle]:
    """A style per arm, in order; arms beyond the tenth repeat colours with another dash.

    >>> [s.ink.name for s in arm_styles(["sft", "dpo", "grpo"], "sft").values()]
    ['arm-base', 'arm-0', 'arm-1']
    """
    styles: dict[str, ArmStyle] = {}
    others = 0
    for index, arm in enumerate(arms):
        if arm == baseline:
            styles[arm] = ArmStyle(index, BASELINE, "o", "-")
            continue
        turn, place = divmod(others, len(ARMS))
        styles[arm] = ArmStyle(index, ARMS[place], _MARKERS[place], _DASHES[turn % len(_DASHES)])
        others += 1
    return styles


def css_variables(theme: str) -> str:
    """The declarations of every colour for `theme` "light" or "dark"."""
    return "".join(f"--{ink.name}:{getattr(ink, theme)};" for ink in ALL)


def by_light() -> Mapping[str, Ink]:
    """Colours by their light value, which is how figures are drawn."""
    return {ink.light.lower(): ink for ink in ALL}
