"""What a data set is made of, in numbers: counts, lengths, length bias, duplicates, contradictions. One row per source."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from evenhand.data.clean import drop_exact, drop_identical
from evenhand.data.convert import pairs
from evenhand.display import csv_cell
from evenhand.types import Content, Group, content_text

Measure = Callable[[Content], int]
"""The length of a prompt or an answer."""


def characters(content: Content) -> int:
    return len(content_text(content))


def token_measure(tokenizer: Any) -> Measure:
    """Lengths in tokens of the text alone, without template or special tokens."""
    return lambda content: len(tokenizer(content_text(content), add_special_tokens=False, verbose=False)["input_ids"])


def statistics(name: str, groups: Sequence[Group], *, measure: Measure = characters) -> dict[str, Any]:
    """One row of the table. Lengths are in the unit of `measure`; means over pairs (over answers where there are none).

    `longer_preferred`: share of pairs whose preferred answer is the longer one, ties in length counting half; 0.5 is
    unbiased. `contradictions`: pairs of answers to one prompt that are preferred in both directions.
    """
    two = pairs(groups)
    prompts = {g.prompt.id: measure(g.prompt.content) for g in groups}
    lengths = [(measure(p.completions[0].content), measure(p.completions[1].content)) for p in two]
    answers = [measure(c.content) for g in groups for c in g.completions]
    return {
        "source": name,
        "groups": len(groups),
        "prompts": len(prompts),
        "pairs": len(two),
        "answers_per_group": round(len(answers) / len(groups), 2) if groups else 0.0,
        "prompt_length": _mean([prompts[g.prompt.id] for g in two or groups]),
        "prompt_p95": _quantile(list(prompts.values()), 0.95),
        "answer_length": _mean(answers),
        "answer_p95": _quantile(answers, 0.95),
        "preferred_length": _mean([a for a, _ in lengths]),
        "rejected_length": _mean([b for _, b in lengths]),
        "longer_preferred": _mean([0.5 if a == b else float(a > b) for a, b in lengths], digits=3),
        "duplicates": len(drop_exact(groups).removed),
        "identical_pairs": len(drop_identical(groups).removed),
        "contradictions": contradictions(two),
        "unscored": sum(math.isnan(s) for g in groups for s in g.scores),
    }


def contradictions(two: Sequence[Group]) -> int:
    """How many pairs of answers to one prompt are preferred both ways."""
    seen = Counter((p.prompt.id, p.completions[0].text, p.completions[1].text) for p in two)
    return sum(a < b and (prompt, b, a) in seen for prompt, a, b in seen)


def shared_prompts(first: Sequence[Group], second: Sequence[Group]) -> int:
    """How many prompts two sets have in common (a training and an evaluation set should have none)."""
    return len({g.prompt.id for g in first} & {g.prompt.id for g in second})


def _mean(values: Sequence[float], digits: int = 1) -> float | None:
    return round(float(np.mean(values)), digits) if values else None


def _quantile(values: Sequence[float], share: float) -> float | None:
    return round(float(np.quantile(values, share)), 1) if values else None


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table with a header line; an empty cell where there is nothing to measure."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: csv_cell(v) for k, v in row.items()} for row in rows)
    return out.getvalue()


TABLE = (
    ("Dataset", "source"), ("#Prompts", "prompts"), ("Prompt Len.", "prompt_length"), ("Preferred Len.", "preferred_length"),
    ("Rejected Len.", "rejected_length"), ("Completion", "completion"), ("Annotator", "annotator"), ("#Pairs", "pairs"),
)  # fmt: skip
"""The columns of Dong et al. 2024 (arXiv:2405.07863), Table 5, and where they are found."""


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in the form of Table 5 of Dong et al. 2024: a line per data set; what a source does not say is "-".

    >>> print(as_table([{"source": "a", "prompts": 2, "pairs": 3, "prompt_length": 4.5, "annotator": "Human"}]))
    Dataset  #Prompts  Prompt Len.  Preferred Len.  Rejected Len.  Completion  Annotator  #Pairs
    a               2          4.5               -              -           -      Human       3
    """
    cells = [[name for name, _ in TABLE]]
    cells += [["-" if row.get(column) is None else str(row[column]) for _, column in TABLE] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(TABLE))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]) for line in cells
    )


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for people: sources side by side, a line per number.

    >>> print(as_text([{"source": "a", "pairs": 3}, {"source": "long", "pairs": None}]))
    source  a  long
    pairs   3     -
    """
    if not rows:
        return "no data"
    names = list(rows[0])
    cells = {name: ["-" if row[name] is None else str(row[name]) for row in rows] for name in names}
    left = max(map(len, names))
    widths = [max(len(cells[name][i]) for name in names) for i in range(len(rows))]
    return "\n".join(
        "  ".join([name.ljust(left), *(cell.rjust(w) for cell, w in zip(cells[name], widths, strict=True))]) for name in names
    )
