r"""Tables as LaTeX, for `\input` into a paper; they need the package booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from evenhand.report.formatting import MINUS
from evenhand.results.record import ArmVerdict

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    MINUS: "$-$",
    "–": "--",
}


def tex_escape(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> tex_escape("dpo_beta 5% \\"), tex_escape("−0.3 – x")
    ('dpo\\_beta 5\\% \\textbackslash{}', '$-$0.3 -- x')
    """
    return "".join(_ESCAPES.get(c, c) for c in text)


def tex_verdict(verdict: str) -> str:
    """Bold marks a verdict, never the largest number."""
    return rf"\textbf{{{verdict}}}" if verdict in (ArmVerdict.BETTER, ArmVerdict.WORSE) else verdict


def tabular(notes: Sequence[str], alignment: str, rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are LaTeX already, its heading the first row; `notes` go before it as comments."""
    head, *body = (" & ".join(row) + r" \\" for row in rows)
    begin = rf"\begin{{tabular}}{{{alignment}}}"
    lines = [*(f"% {note}" for note in notes), begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, ""])
