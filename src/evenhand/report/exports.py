"""The verdict table for spreadsheets and papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evenhand.report.figures import csv_text
from evenhand.report.formatting import MINUS, amount, fixed, interval, percent
from evenhand.report.summaries import NOT_SCORED, arm_notes
from evenhand.report.summary import ArmRow, Summary
from evenhand.results.comparison import COUNTS
from evenhand.results.record import ArmCost, ArmVerdict, Contrast, ControlledContrast, ControlledWinRate

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}
MINUS_TEX = "$-$"


MEASURES = (
    "ties", "mean_length", "mean_chars", "kl", "reward", "gold", "distinct_1", "distinct_2", "repetition", "self_overlap",
    "entropy", "truncated", "empty", "refusal", "invalid",
)  # fmt: skip


Rows = tuple[list[str], list[list[object]]]
"""A header and the rows under it."""


def results_csv(summary: Summary, seconds: Mapping[str, float] | None = None) -> str:
    """`results_rows` as CSV."""
    return csv_text(*results_rows(summary, seconds))


def results_rows(summary: Summary, seconds: Mapping[str, float] | None = None) -> Rows:
    """One row per arm; shares in [0, 1], lengths in tokens or characters, KL in nats per sequence, entropy in nats per token.

    `p_holm` is against the baseline; the budget is the mean of an arm's seeds, `seconds` their mean wall-clock time. `by_NAME` is
    the mean score by that reward model, in words where it did not score.
    """
    seeds = [f"win_rate_seed_{seed}" for seed in summary.seeds]
    controlled = ["lc_win_rate", "lc_ci95_low", "lc_ci95_high", "lc_form", "lc_scope", "lc_note"]
    joint = ["ci95_simultaneous_low", "ci95_simultaneous_high"]
    header = ["arm", "method", "verdict", "win_rate", "ci95_low", "ci95_high", *joint, "p_holm", "note", *seeds, *controlled]
    header += [*MEASURES, *COUNTS, "seconds", "judge_cost_usd"]
    models = list(dict.fromkeys(name for arm in summary.arms for name in arm.result.proxies))
    header += [f"by_{name}" for name in models]
    rows = [
        [*_identity(arm, summary), *_seed_cells(arm, summary), *_measures(arm, seconds or {}), *_by_models(arm, models)]
        for arm in summary.arms
    ]
    return header, rows


def _identity(arm: ArmRow, summary: Summary) -> list[object]:
    contrast = summary.contrasts.get((arm.name, str(summary.baseline)))
    p = contrast.p_holm if contrast else None
    intervals = [*(arm.ci95 or (None, None)), *(arm.ci95_simultaneous or arm.ci95 or (None, None))]
    return [arm.name, arm.result.method, arm.verdict.value, arm.win_rate, *intervals, p, arm.result.note]


def _seed_cells(arm: ArmRow, summary: Summary) -> list[float | None]:
    missing = len(summary.seeds) - len(arm.per_seed)
    return [*arm.per_seed[: len(summary.seeds)], *[None] * missing]


def _measures(arm: ArmRow, seconds: Mapping[str, float]) -> list[object]:
    found = arm.result
    controlled, ledger = found.length_controlled or ControlledWinRate(), found.ledger or ArmCost()
    at_equal_length = [
        controlled.win_rate,
        *(controlled.ci95 or (None, None)),
        controlled.form,
        controlled.scope,
        controlled.note,
    ]
    spent = [*(getattr(ledger, key) for key in COUNTS), seconds.get(arm.name), found.judge_cost_usd]
    return [*at_equal_length, *(getattr(found, key) for key in MEASURES), *spent]


def _by_models(arm: ArmRow, models: Sequence[str]) -> list[float | str]:
    scores = [arm.result.proxies.get(name) for name in models]
    return [NOT_SCORED if score is None else score for score in scores]


def contrasts_csv(summary: Summary) -> str:
    """`contrasts_rows` as CSV."""
    return csv_text(*contrasts_rows(summary))


def contrasts_rows(summary: Summary) -> Rows:
    """One row per ordered pair of arms: a minus b, as shares."""
    columns = ["difference", "ci95_low", "ci95_high", "ci95_simultaneous_low", "ci95_simultaneous_high", "p_holm", "verdict"]
    header = ["a", "b", *columns, *(f"lc_{name}" for name in columns)]
    return header, [[c.a, c.b, *_finding(c), *_finding(c.length_controlled)] for c in summary.contrasts.values()]


def _finding(c: Contrast | ControlledContrast | None) -> list[object]:
    if c is None:
        return [None] * 7
    return [c.difference, *(c.ci95 or (None, None)), *(c.joint or c.ci95 or (None, None)), c.p_holm, c.verdict.value]


TEX = (
    ("Gold", "gold", 2), ("Length", "mean_length", 0), ("KL", "kl", 1), ("Entropy", "entropy", 2), ("Dist-2", "distinct_2", 2),
)  # fmt: skip


def results_tex(summary: Summary) -> str:
    r"""A `tabular` for `\input`; needs the package booktabs. Bold marks a verdict, never the largest number.

    Columns that no arm has a number for are left out; results.csv has everything.
    """
    shown = [column for column in TEX if any(getattr(arm.result, column[1]) is not None for arm in summary.arms)]
    prompts, seeds = summary.n_prompts or "?", len(summary.seeds)
    controlled = any(_controlled(arm) is not None for arm in summary.arms)
    joint = any(arm.ci95_simultaneous for arm in summary.arms)
    intervals = [r"95\% interval", *([r"95\%, all arms"] if joint else [])]
    head = ["Arm", "Win rate", *intervals, *(["At equal length"] if controlled else []), *(c[0] for c in shown)]
    head += ["FLOPs", "Verdict"]
    rows = [_tex_row(arm, shown, controlled, joint) for arm in summary.ranked]
    note = f"% Win rate against {tex_escape(summary.reference)} on {prompts} held-out prompts, {seeds} seeds. FLOPs per seed."
    begin = rf"\begin{{tabular}}{{l{'r' * (len(head) - 2)}l}}"
    lines = [note, *_tex_notes(summary), begin, r"\toprule", " & ".join(head) + r" \\", r"\midrule", *rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _tex_notes(summary: Summary) -> list[str]:
    """Comments that must travel with the numbers."""
    notes = [f"% {arm}: {note}" for arm, note in arm_notes(summary)]
    beside = ["% The evaluations beside it are in evaluations.tex; the verdicts share one correction with theirs."]
    return [*notes, *([f"% {summary.looked}"] if summary.looked else []), *(beside if summary.evaluations else [])]


def _controlled(arm: ArmRow) -> float | None:
    return arm.result.length_controlled.win_rate if arm.result.length_controlled is not None else None


def _tex_row(arm: ArmRow, shown: Sequence[tuple[str, str, int]], controlled: bool, joint: bool) -> str:
    numbers = [percent(arm.win_rate), interval(arm.ci95), *([interval(arm.ci95_simultaneous or arm.ci95)] if joint else [])]
    if controlled:
        even = arm.result.length_controlled
        ends = f" ({interval(even.ci95)})" if even is not None and even.ci95 is not None else ""
        numbers.append(percent(_controlled(arm)) + ends)
    numbers += [fixed(getattr(arm.result, key), digits) for _, key, digits in shown]
    numbers.append(amount(arm.result.ledger.flops if arm.result.ledger is not None else None))
    verdict = arm.verdict.value
    cells = [tex_escape(arm.name), *(tex_escape(number) for number in numbers)]
    cells.append(rf"\textbf{{{verdict}}}" if arm.verdict in (ArmVerdict.BETTER, ArmVerdict.WORSE) else verdict)
    return " & ".join(cells) + r" \\"


def tex_escape(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> tex_escape("dpo_beta 5% \\"), tex_escape("−0.3 – x")
    ('dpo\\_beta 5\\% \\textbackslash{}', '$-$0.3 -- x')
    """
    escaped = "".join(_ESCAPES.get(c, c) for c in text)
    return escaped.replace(MINUS, MINUS_TEX).replace("–", "--")
