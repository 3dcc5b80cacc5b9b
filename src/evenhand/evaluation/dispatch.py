"""What a path given to `evenhand evaluate` is, and what can be said of it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.evaluation import alpaca_eval, outcomes
from evenhand.evaluation.answers import read_answers
from evenhand.evaluation.benchmarks import recognised, report_of
from evenhand.evaluation.best_of_n import best_of_n_curve
from evenhand.evaluation.outcome_files import is_battles, read_outcomes
from evenhand.evaluation.pairwise_files import ratings
from evenhand.evaluation.policies import text_metrics
from evenhand.evaluation.readers import is_table, read_located
from evenhand.seeding import rng
from evenhand.stats import length_bias, length_heatmap
from evenhand.types import Group, Scores

Scorer = Callable[[Sequence[Group]], list[Scores]]
NONE: Mapping[str, Scorer] = MappingProxyType({})


def evaluate_file(
    path: Path, difficulty: Sequence[float] | None = None, margin: float | None = None, scorers: Mapping[str, Scorer] = NONE
) -> dict[str, Any]:
    """Statistics of a file by what it holds: outcomes, battles, annotations, judgments, judged tables, or answers.

    `kind` in the result says what the file was taken for. `scorers` choose among the answers to a prompt, for best-of-n curves.
    """
    table = _judged_table(path)
    if table is not None:
        return {"kind": "judged models", "leaderboard": _table_lines(table, difficulty)}
    located = [] if is_table(path) or path.is_dir() else read_located(path)
    names = located[0][1].keys() if located else set()
    if (name := recognised(names)) is not None:
        return {"kind": name, **report_of(name, located, difficulty)}
    if is_table(path) or "outcome" in names or {"model_a", "model_b", "winner"} <= set(names):
        read = read_outcomes(path)
        if is_battles(read):
            return {"kind": "battles", **ratings(read)}
        return {"kind": "outcomes", **outcomes.compare(read, margin)}
    name, groups = read_answers(path)
    return {"kind": "answers", "name": name, **answers_report(groups, scorers)}


def answers_report(groups: Sequence[Group], scorers: Mapping[str, Scorer] = NONE) -> dict[str, Any]:
    """Text metrics; with several scored answers per prompt also best-of-n curves (by each scorer, by length, by chance and by
    the score itself), and how much each score follows length."""
    found: dict[str, Any] = {"text": text_metrics(groups)}
    sizes = {len(g.completions) for g in groups}
    scored = [g for g in groups if g.scores and not any(np.isnan(g.scores))]
    if len(sizes) == 1 and sizes.pop() > 2 and scored:
        draw = rng("best-of-n", "random scorer")
        proxies = {
            "length": [[float(len(c.text)) for c in g.completions] for g in groups],
            "random": [draw.random(len(g.completions)).tolist() for g in groups],
            "the score itself": [list(g.scores) for g in groups],
            **{name: [list(s.values) for s in scorer(groups)] for name, scorer in scorers.items()},
        }
        found["best_of_n"] = best_of_n_curve(groups, proxies)
        found["length_bias"] = {n: length_map(groups, rows) for n, rows in proxies.items() if n not in ("length", "random")}
    return found


def length_map(groups: Sequence[Group], scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    """How much a score follows length within prompts, with the heat map of correlation against mean length, in characters.

    Prompts with an unscored answer are left out. `heat` counts prompts [correlation bins, length bins]; None without spread.
    """
    kept = [(row, [float(len(c.text)) for c in g.completions]) for g, row in zip(groups, scores, strict=True)]
    kept = [(row, lengths) for row, lengths in kept if not any(np.isnan(row))]
    bias = length_bias([row for row, _ in kept], [lengths for _, lengths in kept])
    shown: dict[str, Any] = {
        "mean_correlation": bias.mean_correlation, "share_above_0.3": bias.share_above, "slope_per_100_chars": bias.slope,
        "prompts": len(bias.correlations), "skipped": bias.skipped, "heat": None,
    }  # fmt: skip
    if bias.correlations:
        counts, down, across = length_heatmap(bias)
        shown["heat"] = {"counts": counts.astype(int).tolist(), "correlation": down.tolist(), "length": across.tolist()}
    return shown


def read_difficulty(path: Path) -> list[float]:
    """The last column of a CSV with a header, in order: AlpacaEval's instruction difficulty has this form."""
    try:
        return np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)[:, -1].tolist()
    except (OSError, ValueError) as error:
        raise UserError(
            f"not a table of numbers: {error}", where=str(path), fix="index,difficulty with one line per prompt"
        ) from error


def _judged_table(path: Path) -> Mapping[str, Any] | None:
    """{model: {preference, len_model, len_baseline[, prompt, leaderboard]}}, or None when the file is something else."""
    if not path.name.endswith((".json", ".json.gz")) or not path.is_file():
        return None
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if data.lstrip()[:1] != b"{":
        return None
    try:
        table = json.loads(data)
    except ValueError:
        return None  # JSON lines: several objects, not one
    fits = isinstance(table, dict) and all(
        isinstance(v, dict) and {"preference", "len_model"} <= v.keys() for v in table.values()
    )
    return table if fits else None


def _of_prompts(difficulty: Sequence[float], row: Mapping[str, Any], model: str) -> np.ndarray:
    """The difficulties of a model's prompts, which a row of a part of them numbers."""
    own = row.get("prompt")
    if (len(difficulty) != len(row["preference"])) if own is None else not all(0 <= i < len(difficulty) for i in own):
        raise UserError(
            f"{len(difficulty)} difficulties do not fit {len(row['preference'])} comparisons", where=model,
            fix="give one line per prompt; of a part of them say which in `prompt`, counted from 0",
        )  # fmt: skip
    return np.asarray(difficulty) if own is None else np.asarray(difficulty)[own]


def _table_lines(table: Mapping[str, Any], difficulty: Sequence[float] | None) -> dict[str, Any]:
    lines = {}
    for model, row in table.items():
        hard = None
        if difficulty is not None:
            hard = _of_prompts(difficulty, row, model)
        lines[model] = alpaca_eval.leaderboard_row(row["preference"], row["len_model"], row["len_baseline"], hard)
        if stated := row.get("leaderboard"):
            lines[model]["stated"] = {
                k: stated[k] for k in ("win_rate", "standard_error", "length_controlled_winrate") if k in stated
            }
    return dict(sorted(lines.items(), key=lambda item: -item[1]["win_rate"]))
