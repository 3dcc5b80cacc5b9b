"""docs/results/theory.md: what the mathematics promises, measured, with figures. `evenhand theory --page FILE` writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evenhand.report.figures import PlotFigure
from evenhand.report.plots.theory import figures
from evenhand.theory import likelihood, soft_q
from evenhand.theory.rows import TheoryRow

_HEAD = """# Theory, measured

Written by `evenhand theory --page docs/results/theory.md`. Problems small enough to enumerate, in float64: where two roads must
meet the residual is rounding, and where an assumption is missing it is not. The losses and credits are the package's own, so
that every line is a test of them too. The claims are those of *All Roads Lead to Likelihood* (arXiv:2503.01067), of the *RLHF
Workflow*'s algorithm 1 (arXiv:2405.07863), and the closed forms of a bandit with five answers.

**{held} of {all} claims hold.**
"""
_SECTIONS = {
    "theory-residuals": "## All claims",
    "theory-projection-inside": "## Both projections",
    "theory-exploration-gap": "## Algorithm 1 in the linear case",
    "theory-fixed-points": "## Fixed points under a KL",
    "theory-over-optimisation": "## Over-optimisation",
}
_WHITE = '<rect width="100%" height="100%" fill="#ffffff"/>'


def write(path: Path, rows: Sequence[TheoryRow]) -> None:
    """The page at `path`, and its figures beside it."""
    drawn = figures(rows)
    for figure in drawn:
        text = figure.wide.standalone
        cut = text.index(">", text.index("<svg ")) + 1  # ink on paper: a dark page would swallow it
        path.with_name(f"{figure.name}.svg").write_text(text[:cut] + _WHITE + text[cut:], encoding="utf-8")
    path.write_text(page(rows, drawn), encoding="utf-8")


def page(rows: Sequence[TheoryRow], drawn: Sequence[PlotFigure]) -> str:
    """The whole page."""
    parts = [_HEAD.format(held=sum(r.holds for r in rows), all=len(rows)).rstrip()]
    for figure in drawn:
        if figure.name in _SECTIONS:
            parts.append(_SECTIONS[figure.name])
        parts.append(f"![{figure.title}]({figure.name}.svg)\n\n*{figure.caption}*")
    return "\n\n".join([*parts, _soft_q(), _claims(rows)]) + "\n"


def _soft_q() -> str:
    """One prompt of the tree: rewards of what follows each first token, its Q, and the policy's log-probs."""
    p = likelihood.problem()
    reward = likelihood.reward_mle(p)
    q = soft_q.q_values(p.tree, reward)[0, 0]
    learned = soft_q.conditional(p.tree, likelihood.policy_mle(p))[0, 0]
    below = reward[0].reshape(p.tree.actions, -1)
    lines = [
        "## Soft Q-functions", "",
        "A policy's next-token logits are the soft Q-function of the reward that it is optimal for, up to a shift per prefix. "
        "The fitted rewards of the nine answers to one prompt, by first token; Q is the log of the sum of their exponentials; "
        "the policy that maximum likelihood finds on the same comparisons, with no reward model, has the same log-probs: it has "
        "learned Q.", "",
        "| first token | rewards of what follows | Q | log softmax of Q | policy by likelihood |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for token in range(p.tree.actions):
        follows = ", ".join(f"{v:+.2f}" for v in (below[token] - reward[0].mean()).tolist())
        shifted = float(q[token] - reward[0].mean())
        lines.append(
            f"| {token} | {follows} | {shifted:.3f} | {float(q.log_softmax(-1)[token]):.3f} | {float(learned[token]):.3f} |"
        )
    return "\n".join(lines)


def _claims(rows: Sequence[TheoryRow]) -> str:
    lines = ["## The table", "", "| claim | expected | measured | |", "|---|---|---|---|"]
    for row in rows:
        expected = f"0 (to {row.tolerance:.0e})" if row.expected == "0" else row.expected
        lines.append(f"| {row.claim} | {expected} | {row.measured:.0e} | {'holds' if row.holds else '**does not hold**'} |")
    return "\n".join(lines)
