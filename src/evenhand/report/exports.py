"""The verdict table for spreadsheets and papers."""

from __future__ import annotations

from evenhand.report.figures import csv_text
from evenhand.report.numbers import MINUS, fixed, interval, percent
from evenhand.report.summary import Arm, Summary, Verdict

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}
MINUS_TEX = "$-$"


def results_csv(summary: Summary) -> str:
    """One row per arm; shares in [0, 1], lengths in tokens, KL in nats per sequence."""
    seeds = [f"win_rate_seed_{seed}" for seed in summary.seeds]
    header = ["arm", "verdict", "win_rate", "ci95_low", "ci95_high", *seeds, "ties", "mean_length", "kl", "reward", "gold"]
    return csv_text(header, ([*_identity(arm), *_seed_cells(arm, summary), *_measures(arm)] for arm in summary.arms))


def _identity(arm: Arm) -> list[object]:
    return [arm.name, arm.verdict.value, arm.win_rate, *(arm.ci95 or (None, None))]


def _seed_cells(arm: Arm, summary: Summary) -> list[float | None]:
    missing = len(summary.seeds) - len(arm.per_seed)
    return [*arm.per_seed[: len(summary.seeds)], *[None] * missing]


def _measures(arm: Arm) -> list[object]:
    return [arm.raw.get(key) for key in ("ties", "mean_length", "kl", "reward", "gold")]


def contrasts_csv(summary: Summary) -> str:
    """One row per ordered pair of arms: a minus b, as shares."""
    header = ["a", "b", "difference", "ci95_low", "ci95_high", "p_holm", "verdict"]
    rows = ([c.a, c.b, c.difference, *(c.ci95 or (None, None)), c.p_holm, c.verdict.value] for c in summary.contrasts.values())
    return csv_text(header, rows)


def results_tex(summary: Summary) -> str:
    r"""A `tabular` for `\input`; needs the package booktabs. Bold marks a verdict, never the largest number."""
    rows = [_tex_row(arm) for arm in summary.arms]
    prompts, seeds = summary.n_prompts or "?", len(summary.seeds)
    note = f"% Win rate against {tex_escape(summary.reference)} on {prompts} held-out prompts, {seeds} seeds."
    head = r"Arm & Win rate & 95\% interval & Length & KL & Verdict \\"
    return "\n".join(
        [note, r"\begin{tabular}{lrrrrl}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", ""]
    )


def _tex_row(arm: Arm) -> str:
    numbers = [percent(arm.win_rate), interval(arm.ci95), fixed(arm.raw.get("mean_length"), 0), fixed(arm.raw.get("kl"), 1)]
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
