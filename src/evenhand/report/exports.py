"""The verdict table for spreadsheets and papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evenhand.report.figures import csv_text
from evenhand.report.formatting import MINUS, amount, fixed, interval, percent
from evenhand.report.summary import Arm, Contrast, Summary, Verdict

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}
MINUS_TEX = "$-$"


BUDGET = ("tokens_generated", "tokens_trained", "reward_calls", "flops")
MEASURES = (
    "ties", "mean_length", "mean_chars", "kl", "reward", "gold", "distinct_1", "distinct_2", "repetition", "self_overlap",
    "entropy", "truncated", "empty", "refusal", "invalid",
)  # fmt: skip


def results_csv(summary: Summary, seconds: Mapping[str, float] | None = None) -> str:
    """One row per arm; shares in [0, 1], lengths in tokens or characters, KL in nats per sequence, entropy in nats per token.

    `p_holm` is against the baseline; the budget is the mean of an arm's seeds, `seconds` their mean wall-clock time.
    """
    seeds = [f"win_rate_seed_{seed}" for seed in summary.seeds]
    controlled = ["lc_win_rate", "lc_ci95_low", "lc_ci95_high", "lc_form"]
    header = ["arm", "method", "verdict", "win_rate", "ci95_low", "ci95_high", "p_holm", *seeds, *controlled]
    header += [*MEASURES, *BUDGET, "seconds", "judge_cost_usd"]
    return csv_text(header, ([*_identity(arm, summary), *_seed_cells(arm, summary), *_measures(arm, seconds or {})]
                             for arm in summary.arms))  # fmt: skip


def _identity(arm: Arm, summary: Summary) -> list[object]:
    contrast = summary.contrasts.get((arm.name, str(summary.baseline)))
    method, p = arm.raw.get("method"), contrast.p_holm if contrast else None
    return [arm.name, method, arm.verdict.value, arm.win_rate, *(arm.ci95 or (None, None)), p]


def _seed_cells(arm: Arm, summary: Summary) -> list[float | None]:
    missing = len(summary.seeds) - len(arm.per_seed)
    return [*arm.per_seed[: len(summary.seeds)], *[None] * missing]


def _measures(arm: Arm, seconds: Mapping[str, float]) -> list[object]:
    controlled, ledger = arm.raw.get("length_controlled") or {}, arm.raw.get("ledger") or {}
    at_equal_length = [controlled.get("win_rate"), *(controlled.get("ci95") or (None, None)), controlled.get("form")]
    spent = [*(ledger.get(key) for key in BUDGET), seconds.get(arm.name), arm.raw.get("judge_cost_usd")]
    return [*at_equal_length, *(arm.raw.get(key) for key in MEASURES), *spent]


def contrasts_csv(summary: Summary) -> str:
    """One row per ordered pair of arms: a minus b, as shares."""
    columns = ["difference", "ci95_low", "ci95_high", "p_holm", "verdict"]
    header = ["a", "b", *columns, *(f"lc_{name}" for name in columns)]
    return csv_text(header, ([c.a, c.b, *_finding(c), *_finding(c.controlled)] for c in summary.contrasts.values()))


def _finding(c: Contrast | None) -> list[object]:
    return [c.difference, *(c.ci95 or (None, None)), c.p_holm, c.verdict.value] if c is not None else [None] * 5


TEX = (
    ("Gold", "gold", 2), ("Length", "mean_length", 0), ("KL", "kl", 1), ("Entropy", "entropy", 2), ("Dist-2", "distinct_2", 2),
)  # fmt: skip


def results_tex(summary: Summary) -> str:
    r"""A `tabular` for `\input`; needs the package booktabs. Bold marks a verdict, never the largest number.

    Columns that no arm has a number for are left out; results.csv has everything.
    """
    shown = [column for column in TEX if any(arm.raw.get(column[1]) is not None for arm in summary.arms)]
    prompts, seeds = summary.n_prompts or "?", len(summary.seeds)
    controlled = any((arm.raw.get("length_controlled") or {}).get("win_rate") is not None for arm in summary.arms)
    head = ["Arm", "Win rate", r"95\% interval", *(["At equal length"] if controlled else []), *(c[0] for c in shown)]
    head += ["FLOPs", "Verdict"]
    rows = [_tex_row(arm, shown, controlled) for arm in summary.ranked]
    note = f"% Win rate against {tex_escape(summary.reference)} on {prompts} held-out prompts, {seeds} seeds. FLOPs per seed."
    begin = rf"\begin{{tabular}}{{l{'r' * (len(head) - 2)}l}}"
    return "\n".join(
        [note, begin, r"\toprule", " & ".join(head) + r" \\", r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", ""]
    )


def _tex_row(arm: Arm, shown: Sequence[tuple[str, str, int]], controlled: bool) -> str:
    numbers = [percent(arm.win_rate), interval(arm.ci95)]
    if controlled:
        numbers.append(percent((arm.raw.get("length_controlled") or {}).get("win_rate")))
    numbers += [fixed(arm.raw.get(key), digits) for _, key, digits in shown]
    numbers.append(amount((arm.raw.get("ledger") or {}).get("flops")))
    verdict = arm.verdict.value
    cells = [tex_escape(arm.name), *(tex_escape(number) for number in numbers)]
    cells.append(rf"\textbf{{{verdict}}}" if arm.verdict in (Verdict.BETTER, Verdict.WORSE) else verdict)
    return " & ".join(cells) + r" \\"


def tex_escape(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> tex_escape("dpo_beta 5% \\"), tex_escape("−0.3 – x")
    ('dpo\\_beta 5\\% \\textbackslash{}', '$-$0.3 -- x')
    """
    escaped = "".join(_ESCAPES.get(c, c) for c in text)
    return escaped.replace(MINUS, MINUS_TEX).replace("–", "--")
