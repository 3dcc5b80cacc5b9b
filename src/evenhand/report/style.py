"""Colours. Every arm keeps one colour and one marker through the whole page; the baseline is grey.

Beyond ten arms the ten best are coloured and the others are a lighter grey behind them.
Colours differ in lightness as well as hue; the first six stay apart for colour-blind readers, on light and on dark ground.
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

    @property
    def stands_out(self) -> bool:
        """False for an arm of the grey background, which gets no label of its own in a crowded figure."""
        return self.ink is not REST


INK = Ink("ink", "#1a1d23", "#e9e7e2")
SOFT = Ink("soft", "#5a616d", "#a3a9b4")
FAINT = Ink("faint", "#c9ccd2", "#444a55")
GRID = Ink("grid", "#e7e6e2", "#2b3038")
PAPER = Ink("paper", "#ffffff", "#1a1d22")

REST = Ink("arm-rest", "#a9aeb7", "#6b727d")
BASELINE = Ink("arm-base", "#777d88", "#9aa1ad")
_ARMS = (  # blue, rust, green, violet; amber, wine, indigo, olive; brown, cyan
    ("#1a86e0", "#4a92f7"), ("#a8300c", "#dd8a2b"), ("#00a07a", "#6ff0c4"), ("#54307f", "#b269c6"),
    ("#bd7d0c", "#efe13c"), ("#7c1f48", "#f04a74"), ("#4a62b8", "#9db4ff"), ("#5f8a2a", "#b2ea76"),
    ("#80553a", "#f9b094"), ("#0f93b8", "#86ecfa"),
)  # fmt: skip
ARMS = tuple(Ink(f"arm-{i}", light, dark) for i, (light, dark) in enumerate(_ARMS))
_PHASES = (
    ("#35507a", "#8fb1e3"), ("#7fa3d1", "#4d6fa3"), ("#c7a36b", "#d9b77f"), ("#8d8f98", "#7b8089"), ("#b9868f", "#c99aa3"),
    ("#6b8f85", "#86b3a6"),
)  # fmt: skip
PHASES = tuple(Ink(f"phase-{i}", light, dark) for i, (light, dark) in enumerate(_PHASES))
ALL = (INK, SOFT, FAINT, GRID, PAPER, REST, BASELINE, *ARMS, *PHASES)

_MARKERS = "osD^vph<>8"


def arm_styles(arms: Iterable[str], baseline: str | None, ranking: Iterable[str] = ()) -> dict[str, ArmStyle]:
    """A style per arm. Ten arms have colours: the first ten in order, or of more arms the first ten of `ranking`, best first.

    The rest are the grey background that the ten are seen against; more colours could not be told apart.

    >>> [s.ink.name for s in arm_styles(["sft", "dpo", "grpo"], "sft").values()]
    ['arm-base', 'arm-0', 'arm-1']
    """
    names = list(arms)
    others = [arm for arm in names if arm != baseline]
    if len(others) > len(ARMS):
        ranked = [arm for arm in ranking if arm in others]
        others = (ranked + [arm for arm in others if arm not in ranked])[: len(ARMS)]
    styles = {baseline: ArmStyle(names.index(baseline), BASELINE, "o", "-")} if baseline in names else {}
    for place, arm in enumerate(others):
        styles[arm] = ArmStyle(names.index(arm), ARMS[place], _MARKERS[place], "-")
    return {arm: styles.get(arm, ArmStyle(index, REST, "o", "-")) for index, arm in enumerate(names)}


def css_variables(theme: str) -> str:
    """The declarations of every colour for `theme` "light" or "dark"."""
    return "".join(f"--{ink.name}:{getattr(ink, theme)};" for ink in ALL)


def by_light() -> Mapping[str, Ink]:
    """Colours by their light value, which is how figures are drawn."""
    return {ink.light.lower(): ink for ink in ALL}
