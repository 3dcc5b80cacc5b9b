"""Where the seconds went: one bar per arm, one segment per phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenhand.report.figures import PlotFigure, csv_text
from evenhand.report.formatting import duration, is_number
from evenhand.report.style import INK, PAPER, PHASES, SOFT
from evenhand.report.summary import Summary
from evenhand.report.svg import Drawing, Margins, canvas, render

Seconds = dict[str, dict[str, float]]
"""arm -> phase -> mean seconds per seed."""


def mean_seconds(ledgers: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Seconds:
    """Mean over an arm's seeds of the seconds of each phase; a phase that a seed lacks took it no time."""
    means: Seconds = {}
    for arm, seeds in ledgers.items():
        spent = [ledger["seconds"] for ledger in seeds.values() if ledger.get("seconds")]
        phases = dict.fromkeys(phase for seconds in spent for phase, value in seconds.items() if is_number(value))
        if phases:
            means[arm] = {phase: sum(seconds.get(phase, 0.0) for seconds in spent) / len(spent) for phase in phases}
    return means


def phase_figure(ledgers: Mapping[str, Mapping[str, Mapping[str, Any]]], summary: Summary) -> PlotFigure | None:
    """None when no ledger recorded time."""
    means = mean_seconds(ledgers)
    seconds = {arm.name: means[arm.name] for arm in summary.ranked if arm.name in means}
    if not seconds:
        return None
    phases = list(dict.fromkeys(phase for spent in seconds.values() for phase in spent))
    return PlotFigure(
        name="phases",
        title="Time by phase",
        caption="Mean wall-clock seconds of one seed, split by what they were spent on. "
        "Time depends on the machine; tokens and FLOPs above do not.",
        wide=_draw(seconds, phases, 920, "phases"),
        narrow=_draw(seconds, phases, 360, "phases-narrow"),
        csv=csv_text(["arm", *phases], ([arm, *(spent.get(phase) for phase in phases)] for arm, spent in seconds.items())),
    )


def _draw(seconds: Seconds, phases: list[str], width: int, name: str) -> Drawing:
    wide = width > 500
    row = (34 if wide else 46) if len(seconds) <= 12 else (24 if wide else 38)
    left = 30 + 7.2 * max(map(len, seconds)) if wide else 12
    margins = Margins(left=min(left, 260), right=92 if wide else 74, top=34 + (0 if wide else 14 * (len(phases) > 4)), bottom=40)
    with canvas(width, margins.top + margins.bottom + row * len(seconds), margins) as (figure, axes):
        axes.set_ylim(len(seconds) - 0.5, -0.5)
        for place, (arm, spent) in enumerate(seconds.items()):
            start, y = 0.0, place if wide else place + 0.16
            for phase in phases:
                value = spent.get(phase, 0.0)
                color = PHASES[phases.index(phase) % len(PHASES)].light
                axes.barh(y, value, left=start, height=0.5 if wide else 0.4, color=color, edgecolor=PAPER.light, linewidth=1,
                          label=phase if place == 0 else None)  # fmt: skip
                start += value
            axes.annotate(duration(start), (start, y), (7, 0), textcoords="offset points", va="center", fontsize=11.5)
            if not wide:
                axes.annotate(
                    arm, (0, place - 0.27), (1, 0), textcoords="offset points", va="center", fontsize=12, fontweight="bold"
                )
        axes.set_xlim(0, max(sum(spent.values()) for spent in seconds.values()) * (1.0 if wide else 1.02) or 1)
        axes.set_yticks(range(len(seconds)), list(seconds) if wide else [""] * len(seconds), fontsize=13, color=INK.light)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("seconds per seed")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(phases) if wide else min(len(phases), 4), frameon=False,
                    borderaxespad=0.1, handlelength=0.9, handleheight=0.9, handletextpad=0.4, columnspacing=1.1, fontsize=11,
                    labelcolor=SOFT.light)  # fmt: skip
        return render(
            figure, name, "Seconds by phase: " + ", ".join(f"{a} {duration(sum(s.values()))}" for a, s in seconds.items())
        )
