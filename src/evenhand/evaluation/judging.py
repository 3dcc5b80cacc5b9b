"""Two sides judged and summed up: verdicts, how the judge behaved, and win rates with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.evaluation import alpaca_eval, arena_hard, mt_bench
from evenhand.evaluation.answers import matched
from evenhand.evaluation.equal_style import at_equal_style
from evenhand.evaluation.outcomes import Row, by_question, clustered, compare, question_of
from evenhand.evaluation.readers import write_json_list, write_jsonl
from evenhand.judges import Comparison, Judge, Verdict, account
from evenhand.judges.agreement import by_length, jury_agreement, merged, own_noise
from evenhand.judges.jury import Jury, Repeated
from evenhand.judges.verdict import Progress
from evenhand.stats import length_controlled, style_gaps, style_of, win_rate
from evenhand.types import Group


def summary(comparisons: Sequence[Comparison], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Win rate of the first side, raw and at equal length, and the judge's account.

    Turns of one question are one cluster: intervals are over questions, and the rate at equal length is that of their means.
    """
    outcome = np.array([v.outcome for v in verdicts])
    won = win_rate(outcome)
    row: dict[str, Any] = {"win_rate": won.estimate, "ci95": list(won.ci95), "wins": won.wins, "losses": won.losses}
    clusters = [question_of(c.prompt) for c in comparisons]
    questions = len(set(clusters))
    if 1 < questions < len(clusters):
        low, high = clustered(outcome, clusters)["ci95"]
        row |= {"ci95": [max(low, 0.0), min(high, 1.0)], "questions": questions}
    if questions > 1:
        lengths = np.array([(len(c.a.text), len(c.b.text)) for c in comparisons], dtype=float)
        lc = length_controlled(*(by_question(values, clusters) for values in (outcome, *lengths.T)))
        row["length_controlled"] = {
            "win_rate": lc.estimate, "ci95": list(lc.ci95), "form": lc.form, "note": lc.note, "scope": lc.scope,
        }  # fmt: skip
        gaps = style_gaps([style_of(c.a.text) for c in comparisons], [style_of(c.b.text) for c in comparisons])
        row["style_controlled"] = at_equal_style(outcome, gaps, prompt=clusters, draws=500)
    return {**row, **account(verdicts), **by_length(verdicts, comparisons)}


def told_by_votes(verdicts: Sequence[Verdict], judge: Judge) -> dict[str, Any]:
    """How far a jury's judges agree, or how much a judge that is asked repeatedly differs from itself; nothing for others."""
    votes = [{n: None if math.isnan(x) else x for n, x in v.votes} for v in verdicts if v.votes]
    return jury_agreement(votes) if isinstance(judge, Jury) else own_noise(votes) if isinstance(judge, Repeated) else {}


def record(comparison: Comparison, verdict: Verdict, judge: Judge, policy: str, baseline: str) -> Row:
    """One line of a verdict file: enough to read, to count again and to find the question."""
    return {
        "prompt_id": comparison.prompt.id, "policy": policy, "baseline": baseline, "judge": judge.name,
        "revision": judge.revision, "len_a": len(comparison.a.text), "len_b": len(comparison.b.text), **verdict.to_json(),
    }  # fmt: skip


def judge_run(
    answers: Mapping[str, Mapping[str, list[Group]]], baseline: str, judge: Judge, progress: Progress | None = None,
    limit: int | None = None,
) -> tuple[dict[str, Any], list[Row], list[Verdict]]:  # fmt: skip
    """Every arm of a finished run against its baseline by another judge: win rates, contrasts, account; the verdicts as lines
    of a file, and themselves.

    The contrasts with the baseline are one family of Holm's correction, those among the other arms another, as in the run.
    `answers` by arm and seed; seeds that the baseline has not are left out. `limit`: only the first so many prompts of each.
    """
    outcomes: list[Row] = []
    records: list[Row] = []
    every: list[Verdict] = []
    accounts = []
    for arm, seeds in answers.items():
        for seed, groups in seeds.items():
            if seed not in answers[baseline]:
                continue
            pairs = matched(groups, answers[baseline][seed], f"{arm} seed {seed}")[:limit]
            if arm == baseline:
                outcomes += [_line(arm, seed, pair, 0.5) for pair in pairs]
                continue
            verdicts = judge(pairs, progress)
            accounts.append(account(verdicts))
            every += verdicts
            for pair, verdict in zip(pairs, verdicts, strict=True):
                outcomes.append(_line(arm, seed, pair, verdict.outcome))
                records.append({"arm": arm, "seed": seed, **record(pair, verdict, judge, arm, baseline)})
    found = {**compare(outcomes, baseline=baseline), "baseline": baseline}
    return {**found, "judge": {"name": judge.name, **merged(accounts), **told_by_votes(every, judge)}}, records, every


def _line(arm: str, seed: str, pair: Comparison, outcome: float) -> Row:
    sizes = {"length": len(pair.a.text), "baseline_length": len(pair.b.text)}
    return {"arm": arm, "seed": seed, "prompt": pair.prompt.id, "outcome": outcome, **sizes}


def write(
    out: Path, comparisons: Sequence[Comparison], verdicts: Sequence[Verdict], judge: Judge, names: Mapping[str, str], form: str
) -> list[Path]:
    """`verdicts.jsonl`, and answers and verdicts in AlpacaEval's, Arena-Hard's or MT-Bench's form where asked for."""
    rows = [record(c, v, judge, names["a"], names["b"]) for c, v in zip(comparisons, verdicts, strict=True)]
    write_jsonl(out / "verdicts.jsonl", rows)
    made = {"alpaca_eval": _alpaca_eval, "arena_hard": _arena_hard, "mt_bench": _mt_bench}
    extra = made[form](out, comparisons, verdicts, judge, names) if form in made else []
    return [out / "verdicts.jsonl", *extra]


def _sides(comparisons: Sequence[Comparison], names: Mapping[str, str]) -> list[tuple[str, list[Group]]]:
    """(name, answers) of the model and of the baseline."""
    sides = [(names["a"], [c.a for c in comparisons]), (names["b"], [c.b for c in comparisons])]
    return [(n, [Group(prompt=c.prompt, completions=(x,)) for c, x in zip(comparisons, own, strict=True)]) for n, own in sides]


def _alpaca_eval(
    out: Path, comparisons: Sequence[Comparison], verdicts: Sequence[Verdict], judge: Judge, names: Mapping[str, str]
) -> list[Path]:
    rows = alpaca_eval.annotated(comparisons, verdicts, model=names["a"], baseline=names["b"], annotator=judge.name)
    files = {k: out / f"{k}.json" for k in ("model_outputs", "reference_outputs", "annotations")}
    for (name, groups), key in zip(_sides(comparisons, names), files, strict=False):
        alpaca_eval.write_outputs(files[key], groups, name)
    write_json_list(files["annotations"], rows)
    alpaca_eval.write_leaderboard(out / "leaderboard.csv", alpaca_eval.leaderboard(rows))
    return [*files.values(), out / "leaderboard.csv"]


def _arena_hard(
    out: Path, comparisons: Sequence[Comparison], verdicts: Sequence[Verdict], judge: Judge, names: Mapping[str, str]
) -> list[Path]:
    games = arena_hard.judgments(comparisons, verdicts, model=names["a"], baseline=names["b"], judge=judge.name)
    paths = [out / f"{names['a']}.jsonl"]
    write_jsonl(paths[0], games)
    for name, groups in _sides(comparisons, names):
        paths.append(out / "model_answer" / f"{name}.jsonl")
        arena_hard.write_answers(paths[-1], groups, name)
    return paths


def _mt_bench(
    out: Path, comparisons: Sequence[Comparison], verdicts: Sequence[Verdict], judge: Judge, names: Mapping[str, str]
) -> list[Path]:
    graded = getattr(getattr(judge, "template", None), "kind", "pair") == "single"  # a reward's scores are no grades
    made, kind = (mt_bench.single_judgments, "single") if graded else (mt_bench.pair_judgments, "pair")
    rows = made(comparisons, verdicts, model=names["a"], baseline=names["b"], judge=judge.name, template=judge.revision)
    write_jsonl(out / f"{kind}.jsonl", rows)
    return [out / f"{kind}.jsonl"]
