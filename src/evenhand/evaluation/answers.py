"""Answers of a model from whatever file they are in, and a file's verdicts in whatever form is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evenhand.data.jsonl import FIELDS, read_groups
from evenhand.errors import UserError
from evenhand.evaluation import alpaca_eval, arena_hard, mt_bench
from evenhand.evaluation.readers import read_rows
from evenhand.judges.verdict import Comparison
from evenhand.types import Group


def read_answers(path: str | Path, questions: str | Path | None = None) -> tuple[str, list[Group]]:
    """(name, groups): as evenhand writes them, AlpacaEval's outputs, Arena-Hard's or MT-Bench's answers, or any data format.

    `questions` are MT-Bench's, whose answers do not repeat them. A run's folder of generations stands for its
    `generations.jsonl`; a file without a model's name is called by its own.
    """
    path = Path(path)
    if (found := known_answers(path, questions)) is not None:
        return found
    from evenhand.data.load import load

    return path.stem, load(str(path), where=str(path)).groups


def known_answers(path: Path, questions: str | Path | None = None) -> tuple[str, list[Group]] | None:
    """The same for the forms that only evaluation knows; None for a file that the data loader should read."""
    if (path / "generations.jsonl").is_file():
        return path.parent.name, read_groups(path / "generations.jsonl")
    first = read_rows(path)[0] if path.suffix in (".json", ".jsonl", ".gz") else {}
    if set(FIELDS) <= first.keys():
        return path.stem, read_groups(path)
    if {"instruction", "output", "generator"} <= first.keys():
        return alpaca_eval.read_outputs(path)
    if {"uid", "ans_id", "model", "messages"} <= first.keys():
        return arena_hard.read_answers(path)
    if first.keys() >= mt_bench.ANSWERS and arena_hard.is_old_answer(first):
        return arena_hard.read_old_answers(path, questions)
    if first.keys() >= mt_bench.ANSWERS:
        return mt_bench.read_answers(path, questions)
    return None


def holds_answers(path: Path) -> bool:
    """True for a file, and for a run's folder of generations."""
    return path.is_file() or (path / "generations.jsonl").is_file()


def matched(a: Sequence[Group], b: Sequence[Group], where: str) -> list[Comparison]:
    """Comparisons over the prompts both sides answered, in the order of `a`; prompts of one side only are an error."""
    ours, theirs = _by_id(a, where), _by_id(b, where)
    only = [*(ours.keys() - theirs.keys()), *(theirs.keys() - ours.keys())]
    if only:
        raise UserError(
            f"{len(only)} prompts are answered on one side only (first: {min(only)})",
            where=where,
            why="a comparison needs both answers; leaving prompts out would change the question",
            fix="give files that answer the same prompts",
        )
    return [Comparison(prompt=g.prompt, a=g.completions[0], b=theirs[key].completions[0]) for key, g in ours.items()]


def _by_id(groups: Sequence[Group], where: str) -> Mapping[str, Group]:
    found: dict[str, Group] = {}
    for group in groups:
        if not group.completions:
            raise UserError(f"prompt {group.prompt.id} has no answer", where=where)
        if group.prompt.id in found:
            raise UserError(
                f"prompt {group.prompt.id} is answered twice", where=where, fix="one answer per prompt, or several in one row"
            )
        found[group.prompt.id] = group
    return found
