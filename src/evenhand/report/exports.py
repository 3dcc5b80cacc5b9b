"""The verdict table for spreadsheets, frames and papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter as of
from typing import Any

from evenhand.report.figures import Rows, ends, table
from evenhand.report.formatting import amount, fixed, interval, percent, rate
from evenhand.report.latex import tabular, tex_escape, tex_verdict
from evenhand.report.summaries import NOT_SCORED, Column, arm_notes, shown_columns
from evenhand.report.summary import ArmRow, Summary
from evenhand.results.comparison import COUNTS
from evenhand.results.record import Contrast

MEASURES = (
    "ties", "mean_length", "mean_chars", "kl", "reward", "gold", "distinct_1", "distinct_2", "repetition", "self_overlap",
    "entropy", "truncated", "empty", "refusal", "invalid",
)  # fmt: skip


def results_rows(summary: Summary, seconds: Mapping[str, float] | None = None) -> Rows:
    """One row per arm; shares in [0, 1], lengths in tokens or characters, KL in nats per sequence, entropy in nats per token.

    `p_holm` is against the baseline; the budget is the mean of an arm's seeds, `seconds` their mean wall-clock time. `by_NAME` is
    the mean score by that reward model, in words where it did not score.
    """
    took, models = seconds or {}, dict.fromkeys(name for arm in summary.arms for name in arm.result.proxies)
    against = {a: c.p_holm for (a, b), c in summary.contrasts.items() if b == summary.results.baseline}
    columns: dict[str, Callable[[ArmRow], Any]] = {
        "arm": of("name"), "method": of("result.method"), "verdict": of("verdict.value"), "win_rate": of("win_rate"),
        **ends("ci95", of("ci95")), **ends("ci95_simultaneous", of("verdict_ci95")),
        "p_holm": lambda arm: against.get(arm.name), "note": of("result.note"),
        **{f"win_rate_seed_{seed}": partial(_of_seed, place) for place, seed in enumerate(summary.results.seeds)},
        "lc_win_rate": of("even.win_rate"), **ends("lc_ci95", of("even.ci95")),
        **{f"lc_{name}": of(f"even.{name}") for name in ("form", "scope", "note")},
        **{name: of(f"result.{name}") for name in MEASURES}, **{name: of(f"cost.{name}") for name in COUNTS},
        "seconds": lambda arm: took.get(arm.name), "judge_cost_usd": of("result.judge_cost_usd"),
        **{f"by_{name}": partial(_by_model, name) for name in models},
    }  # fmt: skip
    return table(columns, summary.arms)


def _of_seed(place: int, arm: ArmRow) -> float | None:
    return arm.per_seed[place] if place < len(arm.per_seed) else None


def _by_model(name: str, arm: ArmRow) -> float | str:
    score = arm.result.proxies.get(name)
    return NOT_SCORED if score is None else score


def contrasts_rows(summary: Summary) -> Rows:
    """One row per ordered pair of arms: a minus b, as shares, as they are and (`lc_`) at equal length."""
    columns: dict[str, Callable[[Contrast], Any]] = {"a": of("a"), "b": of("b"), **_finding("", lambda c: c)}
    return table(columns | _finding("lc_", of("length_controlled")), summary.contrasts.values())


def _finding(prefix: str, side: Callable[[Contrast], Any]) -> dict[str, Callable[[Contrast], Any]]:
    """The columns of one view of a contrast; empty cells where there is none."""
    known = lambda name: lambda c: None if side(c) is None else of(name)(side(c))  # noqa: E731
    return {
        f"{prefix}difference": known("difference"), **ends(f"{prefix}ci95", known("ci95")),
        **ends(f"{prefix}ci95_simultaneous", known("verdict_ci95")), f"{prefix}p_holm": known("p_holm"),
        f"{prefix}verdict": known("verdict.value"),
    }  # fmt: skip


TEX = (
    Column("gold", "Gold", fixed), Column("mean_length", "Length", partial(fixed, digits=0)),
    Column("kl", "KL", partial(fixed, digits=1)), Column("entropy", "Entropy", fixed), Column("distinct_2", "Dist-2", fixed),
)  # fmt: skip


def results_tex(summary: Summary) -> str:
    """The verdict table for papers; columns that no arm has a number for are left out, `results.csv` has everything."""
    arms, results = summary.arms, summary.results
    joint, even = summary.joint, any(arm.even.win_rate is not None for arm in arms)
    columns: dict[str, Callable[[ArmRow], str]] = {
        "Arm": of("name"), "Win rate": lambda arm: percent(arm.win_rate), "95% interval": lambda arm: interval(arm.ci95),
        **({"95%, all arms": lambda arm: interval(arm.verdict_ci95)} if joint else {}),
        **({"At equal length": lambda arm: rate(arm.even.win_rate, arm.even.ci95)} if even else {}),
        **{c.title: partial(lambda arm, column: column.cell(arm.result), column=c) for c in shown_columns(TEX, summary)},
        "FLOPs": lambda arm: amount(arm.cost.flops),
    }  # fmt: skip
    head, rows = table(columns, summary.ranked)
    cells = [[*map(tex_escape, row), tex_verdict(arm.verdict)] for row, arm in zip(rows, summary.ranked, strict=True)]
    about = f"on {results.n_prompts or '?'} held-out prompts, {len(results.seeds)} seeds. FLOPs per seed."
    beside = "The evaluations beside it are in evaluations.tex; the verdicts share one correction with theirs."
    notes = [f"Win rate against {tex_escape(summary.reference)} {about}", *(f"{arm}: {note}" for arm, note in arm_notes(summary))]
    notes += [note for note in (summary.looked, beside if results.evaluations else "") if note]
    return tabular(notes, f"l{'r' * (len(head) - 1)}l", [[*map(tex_escape, head), "Verdict"], *cells])
