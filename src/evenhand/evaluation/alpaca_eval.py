"""AlpacaEval's files: model outputs, annotations and the leaderboard, so that its own tools read what is written here.

Formats as in tatsu-lab/alpaca_eval (commit cd543a1). `preference` lies in [1, 2]: 1 = output_1 (the reference) is better.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from evenhand.display import csv_cell
from evenhand.errors import UserError
from evenhand.evaluation.equal_style import at_equal_style
from evenhand.evaluation.readers import Row, column, read_rows, write_json_list
from evenhand.judges.verdict import Comparison, Verdict
from evenhand.stats.length import length_controlled
from evenhand.stats.style import style_gaps, style_of
from evenhand.types import Completion, Group, Prompt

STYLE_DRAWS = 500
LEADERBOARD = (
    "", "win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "discrete_win_rate", "mode", "avg_length",
    "length_controlled_winrate", "lc_standard_error",
)  # fmt: skip


def write_outputs(path: str | Path, groups: Sequence[Group], generator: str) -> None:
    """The first answer of each group as AlpacaEval's model outputs."""
    rows = [
        {"dataset": str(g.prompt.meta.get("dataset", "")), "instruction": g.prompt.text, "output": g.completions[0].text,
         "generator": generator}
        for g in groups
    ]  # fmt: skip
    write_json_list(path, rows)


def read_outputs(path: str | Path) -> tuple[str, list[Group]]:
    """(generator, groups) of a file of model outputs; several generators in one file are an error."""
    rows = read_rows(path)
    generators = set(column(rows, "generator", path))
    if len(generators) != 1:
        raise UserError(f"{len(generators)} generators in one file", where=str(path), fix="one file per model")
    texts = zip(column(rows, "instruction", path), column(rows, "output", path), rows, strict=True)
    groups = [
        Group(
            prompt=Prompt(content=question, meta={"dataset": row.get("dataset", "")}), completions=(Completion(content=answer),)
        )
        for question, answer, row in texts
    ]
    return str(generators.pop()), groups


def annotated(
    comparisons: Sequence[Comparison], verdicts: Sequence[Verdict], *, model: str, baseline: str, annotator: str
) -> list[Row]:
    """Verdicts as AlpacaEval's annotations: output_1 is the baseline's, output_2 the model's, preference = 1 + outcome."""
    return [
        {
            "dataset": str(c.prompt.meta.get("dataset", "")), "instruction": c.prompt.text,
            "output_1": c.b.text, "generator_1": baseline, "output_2": c.a.text, "generator_2": model,
            "annotator": annotator, "preference": 1.0 + v.outcome,
        }
        for c, v in zip(comparisons, verdicts, strict=True)
    ]  # fmt: skip


def leaderboard_row(
    preference: ArrayLike, length_model: ArrayLike, length_baseline: ArrayLike, difficulty: ArrayLike | None = None
) -> dict[str, Any]:
    """A model's line: win_rate = 100 mean(y), standard_error = 100 sd(y)/sqrt(n) with y = preference - 1, lengths in characters.

    `preference` [n] in [1, 2], 0 (an old code for a draw) and NaN (not judged: the row is dropped, as theirs are) allowed.
    `length_controlled_winrate` is our fit without gamed baselines (`lc_form` names it, `lc_ci95` is its bootstrap interval);
    `lc_standard_error` is a quarter of that interval's width, not their spread of predictions.
    """
    p, ours, theirs = (np.asarray(v, dtype=float) for v in (preference, length_model, length_baseline))
    kept = np.isfinite(p)
    d = None if difficulty is None else np.asarray(difficulty, dtype=float)[kept]
    y = np.where(p[kept] == 0.0, 1.5, p[kept]) - 1.0
    n = len(y)
    if n < 2 or y.min() < 0.0 or y.max() > 1.0:
        raise UserError(f"{n} preferences between {y.min(initial=1) + 1:g} and {y.max(initial=0) + 1:g}", where="preference")
    wins, draws = int((y > 0.5).sum()), int((y == 0.5).sum())
    lc = length_controlled(y, ours[kept], theirs[kept], d)
    return {
        "win_rate": 100 * float(y.mean()),
        "standard_error": 100 * float(y.std(ddof=1)) / math.sqrt(n),
        "n_wins": wins,
        "n_wins_base": n - wins - draws,
        "n_draws": draws,
        "n_total": n,
        "discrete_win_rate": 100 * (wins + draws / 2) / n,
        "mode": "community",
        "avg_length": int(ours[kept].mean()),  # cut, as theirs is
        "length_controlled_winrate": 100 * lc.estimate,
        "lc_standard_error": 100 * (lc.ci95[1] - lc.ci95[0]) / 4,
        "lc_form": lc.form,
        "lc_ci95": [100 * v for v in lc.ci95],
        "lc_note": lc.note,
    }


def leaderboard(rows: Sequence[Row], difficulty: ArrayLike | None = None) -> dict[str, dict[str, Any]]:
    """A line per model of a list of annotations, best first. `difficulty` follows the prompts in the order of the annotations.

    Raises: UserError where there is not one difficulty per prompt: it is not known then which belongs to which.
    """
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(str(row["generator_2"]), []).append(row)
    place = {text: i for i, text in enumerate(dict.fromkeys(r["instruction"] for r in rows))}
    if difficulty is not None and len(np.asarray(difficulty)) != len(place):
        raise UserError(
            f"{len(np.asarray(difficulty))} difficulties for {len(place)} prompts", where="difficulty",
            fix="give one line per prompt of the annotations, in their order",
        )  # fmt: skip
    lines = {}
    for model, own in by_model.items():
        hard = None if difficulty is None else np.asarray(difficulty, dtype=float)[[place[r["instruction"]] for r in own]]
        preference = [math.nan if r["preference"] is None else r["preference"] for r in own]
        lines[model] = leaderboard_row(preference, [len(r["output_2"]) for r in own], [len(r["output_1"]) for r in own], hard)
        lines[model] |= _at_equal_style(own)
    return dict(sorted(lines.items(), key=lambda item: -item[1]["win_rate"]))


def _at_equal_style(rows: Sequence[Row]) -> dict[str, Any]:
    """The win rate at equal length, headers, lists and bold, in per cent; a reason instead where the data allow no fit."""
    kept = [r for r in rows if r["preference"] is not None and math.isfinite(r["preference"])]
    outcome = np.array([0.5 if r["preference"] == 0.0 else r["preference"] - 1.0 for r in kept])
    gaps = style_gaps([style_of(r["output_2"]) for r in kept], [style_of(r["output_1"]) for r in kept])
    fit = at_equal_style(outcome, gaps, prompt=[r["instruction"] for r in kept], draws=STYLE_DRAWS)
    if "ci95" not in fit:
        return {"style_controlled_winrate": None, "style_note": fit["note"]}
    return {"style_controlled_winrate": 100 * fit["win_rate"], "style_ci95": [100 * end for end in fit["ci95"]]}


def write_leaderboard(path: str | Path, lines: Mapping[str, Mapping[str, Any]]) -> None:
    """The leaderboard as AlpacaEval's csv: the model's name is the index, no other columns than theirs."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(LEADERBOARD)
        for model, line in lines.items():
            writer.writerow([csv_cell(model), *(line[name] for name in LEADERBOARD[1:])])
