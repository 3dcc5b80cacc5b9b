"""The figures of `evenhand theory`: drawn from exact numbers, so that nothing in them is noise but the labels of algorithm 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evenhand.report.figures import PlotFigure, csv_text
from evenhand.report.style import ARMS, SOFT
from evenhand.report.svg import Margins, canvas, render
from evenhand.theory import bandit, enumeration, exploration, overoptimisation, projections
from evenhand.theory.rows import TheoryRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Shape = Callable[["Axes"], object]
"""Sets what is special about a figure's axes."""
REPEATS, ROUNDS = 12, 6
_WIDTH, _HEIGHT = 640, 320
_FLOOR = 1e-17
"""Where residuals of exactly 0 are drawn."""


@dataclass(frozen=True, slots=True)
class Line:
    """One curve; `dashed` and `marks` tell kinds apart without colour, and points that are not `linked` have no line."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    marks: bool = False
    linked: bool = True


def figures(rows: Sequence[TheoryRow]) -> list[PlotFigure]:
    """All of them, in the order of the page."""
    return [residuals(rows), *_projections(), *_exploration(), _fixed_points(), _overoptimisation()]


def residuals(rows: Sequence[TheoryRow]) -> PlotFigure:
    """Every claim's residual on a logarithmic line: what must vanish, and what must not."""
    name, height = "theory-residuals", 40 + 14 * len(rows)
    with canvas(_WIDTH + 60, height, Margins(left=380, right=16, top=8, bottom=32)) as (figure, axes):
        for place, row in enumerate(reversed(rows)):
            vanishes = row.expected == "0"
            axes.plot(
                [max(row.measured, _FLOOR)], [place], marker="o" if vanishes else "s", markersize=5, linestyle="none",
                color=ARMS[0].light if vanishes else ARMS[1].light,
            )  # fmt: skip
        _logarithmic(axes, (1e-16, 1e-12, 1e-8, 1e-4, 1.0))
        axes.set_yticks(range(len(rows)), [row.claim for row in reversed(rows)], fontsize=8.5)
        axes.set_ylim(-1, len(rows))
        axes.set_xlabel("residual")
        drawing = render(figure, name, f"{sum(r.holds for r in rows)} of {len(rows)} claims hold")
    return PlotFigure(
        name=name, title="Claims and their residuals",
        caption="One mark per claim. Circles must vanish and lie at rounding; squares are the controls, where an assumption is "
        "missing, and must not. Exact zeros are drawn at the left edge.",
        wide=drawing, csv=csv_text(["claim", "expected", "measured"], [[r.claim, r.expected, r.measured] for r in rows]),
    )  # fmt: skip


def _lines(name: str, title: str, caption: str, axis: tuple[str, str], lines: Sequence[Line], shape: Shape) -> PlotFigure:
    """A figure of lines; `axis` are the titles of its axes."""
    rows = (len(lines) + 1) // 2
    with canvas(_WIDTH, _HEIGHT + 18 * rows, Margins(left=58, right=16, top=12 + 18 * rows, bottom=46)) as (figure, axes):
        for place, line in enumerate(lines):
            axes.plot(
                line.x, line.y, color=ARMS[place % len(ARMS)].light, linewidth=1.8, label=line.label,
                linestyle=((0, (5, 3)) if line.dashed else "solid") if line.linked else "none",
                marker="o" if line.marks else None, markersize=4.5,
            )  # fmt: skip
        axes.set_xlabel(axis[0])
        axes.set_ylabel(axis[1])
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=11, handlelength=2.4)
        shape(axes)
        drawing = render(figure, name, title)
    table = [[line.label, x, y] for line in lines for x, y in zip(line.x, line.y, strict=True)]
    return PlotFigure(name=name, title=title, caption=caption, wide=drawing, csv=csv_text(["line", *axis], table))


def _logarithmic(axes: Axes, ticks: Sequence[float]) -> None:
    """A logarithmic axis whose numbers are written out: texts are never read as formulas here."""
    axes.set_xscale("log")
    axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _projections() -> list[PlotFigure]:
    import torch

    t = torch.linspace(-1.5, 4.0, 111, dtype=torch.float64)
    told = [
        ("inside", projections.member(torch.tensor(projections.INSIDE).double()),
         "The target is a member of the class: likelihood (forward KL) and RL (reverse KL) have one minimum, at the target. "
         "That is why RLHF is maximum likelihood when both classes are one (theorem 2.2)."),
        ("outside", projections.TWO_PEAKS,
         "The target has peaks at both ends, and no member has: likelihood covers both with a policy in between, RL goes to the "
         "higher one. That is the control: with policies that cannot be what the reward asks for, the two roads part."),
    ]  # fmt: skip
    found = []
    for name, target, caption in told:
        lines = [
            Line("forward: KL(target, policy)", t.tolist(), projections.forward(t, target).tolist()),
            Line("reverse: KL(policy, target)", t.tolist(), projections.reverse(t, target).tolist(), dashed=True),
        ]
        title = f"Two projections, target {name} the class"
        marked = _marked(projections.nearest(target))
        found.append(_lines(f"theory-projection-{name}", title, caption, ("parameter of the policy", "nats"), lines, marked))
    return found


def _marked(places: Sequence[float]) -> Shape:
    """A thin upright line at each of the places."""

    def mark(axes: Axes) -> None:
        for place, style in zip(places, ("solid", (0, (4, 3))), strict=True):
            axes.axvline(place, color=SOFT.light, linewidth=1, linestyle=style)
        axes.set_ylim(0, 2.5)

    return mark


def _exploration() -> list[PlotFigure]:
    p = exploration.linear_problem()
    runs = {
        name: [exploration.rounds(p, partner, count=ROUNDS, seed=seed) for seed in range(REPEATS)]
        for name, partner in exploration.PARTNERS.items()
    }
    means = {name: np.mean([[(r.gap, r.information) for r in rounds] for rounds in drawn], 0) for name, drawn in runs.items()}
    at = list(range(1, ROUNDS + 1))
    about = f"Means over {REPEATS} draws of pairs and labels in one problem: 20 pairs a round, features of four numbers."
    gap = (
        "theory-exploration-gap", "Algorithm 1, linear: distance to the best policy",
        f"How far the main agent is from the best KL-regularised value before each round, by who answers beside it. {about}",
        ("round", "value of the best policy less the main agent's"),
    )  # fmt: skip
    gain = (
        "theory-exploration-information", "Algorithm 1, linear: information of the pair",
        "The norm of the difference in mean features under the inverse covariance of what has been seen. It falls as the data "
        "come in; a pair of the main agent with itself has none by definition, and still learns from two different draws. "
        + about,
        ("round", "information gain"),
    )  # fmt: skip
    return [
        _lines(*words, [Line(name, at, m[:, column].tolist(), marks=True) for name, m in means.items()], _whole_rounds)
        for column, words in enumerate((gap, gain))
    ]


def _whole_rounds(axes: Axes) -> None:
    axes.set_xticks(range(1, ROUNDS + 1))
    axes.set_ylim(bottom=0)


def _fixed_points() -> PlotFigure:
    betas = np.geomspace(0.05, 5, 60).tolist()
    best = int(enumeration.REWARD.argmax())
    tilted = [enumeration.tilted(enumeration.REWARD / b).exp()[best].item() for b in betas]
    k3 = [enumeration.forward_kl_point(b).exp()[best].item() for b in betas]
    centred = [enumeration.forward_kl_point(1.5 * b).exp()[best].item() for b in betas]
    trained = [
        fit()[0].exp()[best].item() for fit in (bandit.reinforce_kl_in_reward, bandit.k3_in_loss, bandit.k3_in_loss_centred)
    ]
    lines = [
        Line("KL in the reward, DPO, k2 in the loss: tilted", betas, tilted),
        Line("k3 in the loss", betas, k3, dashed=True),
        Line("k3 in the loss, centred groups of 3", betas, centred, dashed=True),
        Line(f"trained at {enumeration.BETA:g}", [enumeration.BETA] * len(trained), trained, marks=True, linked=False),
    ]
    return _lines(
        "theory-fixed-points", "Where KL-regularised objectives end",
        "The probability of the best of five answers over the weight of the KL. `k3` in a loss has the gradient of the forward "
        "KL on policy, so that it ends elsewhere than a KL in the reward; a centred advantage over groups of three makes the "
        "same penalty weigh half as much again. The marks were trained, the lines are closed forms.",
        ("weight of the KL", "probability of the best answer"), lines,
        lambda axes: _logarithmic(axes, (0.05, 0.1, 0.5, 1.0, 5.0)),
    )  # fmt: skip


def _overoptimisation() -> PlotFigure:
    lines = []
    for name, heavy in (("light", False), ("heavy", True)):
        proxy, gold = overoptimisation.rewards(heavy=heavy)
        away = overoptimisation.tilted(proxy, gold, np.geomspace(0.05, 20, 80).tolist())
        away = [p for p in away if p.kl <= overoptimisation.FARTHEST]
        lines.append(Line(f"gold, {name}-tailed errors", [p.kl for p in away], [p.gold for p in away]))
        best = [p for p in overoptimisation.best_of(proxy, gold, [2**k for k in range(9)]) if p.kl <= overoptimisation.FARTHEST]
        x, y = [p.kl for p in best], [p.gold for p in best]
        lines.append(Line(f"the same by best of n, {name}", x, y, dashed=True, marks=True))
    return _lines(
        "theory-over-optimisation", "Over-optimisation: gold reward over KL",
        "Policies that follow a proxy, gold plus an error of the same deviation, ever further from the reference. Where errors "
        "have light tails gold keeps rising; where they have heavy tails the highest proxies are the largest errors, and gold "
        "falls back. How low the tilted policy ends is an accident of the few answers with the largest errors; best-of-n, which "
        "knows ranks alone, gets there later.",
        ("KL to the reference, nats", "mean gold reward"), lines, lambda axes: None,
    )  # fmt: skip
