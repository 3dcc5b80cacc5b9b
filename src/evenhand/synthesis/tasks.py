"""Tasks as text, each in several phrasings, for tuning on instructions; whole tasks are held out."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.errors import UserError, did_you_mean
from evenhand.seeding import keyed, rng
from evenhand.synthesis.files import is_text, read_yaml
from evenhand.types import Completion, Group, Message, Prompt

BUILTIN = Path(__file__).parent / "tasks.yaml"
_FORM = "NAME: {cluster: KIND, phrasings: [{question: ..., answer: ...}]}, texts with fields as {field}, other braces doubled"


@dataclass(frozen=True, slots=True)
class SynthesisTask:
    """Phrasings are (question, answer) templates over a row's fields; `cluster` names tasks of one kind."""

    name: str
    cluster: str
    phrasings: tuple[tuple[str, str], ...]

    @property
    def fields(self) -> set[str]:
        return {name for pair in self.phrasings for text in pair for _, name, _, _ in string.Formatter().parse(text) if name}


def tasks(path: Path | str = BUILTIN) -> dict[str, SynthesisTask]:
    """Tasks of a YAML file: `NAME: {cluster: ..., phrasings: [{question: ..., answer: ...}, ...]}`."""
    rows = read_yaml(path)
    if not isinstance(rows, dict) or not rows:
        raise UserError("expected tasks by name", where=str(path), fix=_FORM)
    out = {}
    for name, row in rows.items():
        if not _well_formed(row):
            raise UserError(f"the task '{name}' needs a cluster and phrasings", where=str(path), fix=_FORM)
        phrasings = tuple((p["question"], p["answer"]) for p in row["phrasings"])
        out[name] = SynthesisTask(name, row["cluster"], phrasings)
    return out


def _well_formed(row: Any) -> bool:
    """Whether a task says its cluster and at least one pair of templates."""
    if not isinstance(row, dict) or set(row) != {"cluster", "phrasings"} or not isinstance(row["phrasings"], list):
        return False
    pairs = [p for p in row["phrasings"] if isinstance(p, dict) and set(p) == {"question", "answer"}]
    if not 0 < len(pairs) == len(row["phrasings"]) or not is_text(row["cluster"]):
        return False
    return all(_is_template(text) for pair in pairs for text in pair.values())


def _is_template(text: Any) -> bool:
    """Whether a text has only names of fields in braces; other braces are written twice."""
    try:
        return is_text(text) and all(
            name is None or (name.isidentifier() and not (how or conversion))
            for _, name, how, conversion in string.Formatter().parse(text)
        )
    except ValueError:
        return False


def phrased(
    task: SynthesisTask, rows: Sequence[Mapping[str, Any]], *, seed: int = 0, exemplars: int = 0, per_row: int = 1
) -> list[Group]:
    """Each row as `per_row` demonstrations in phrasings drawn at random without repetition, after `exemplars` others.

    Exemplars are other rows in the same phrasing, question and answer, above the question. Sources: Sanh et al. 2022 (T0: many
    phrasings a task); Wei et al. 2022 (FLAN: with and without exemplars).
    """
    if rows and (missing := task.fields - set(rows[0])):
        name = sorted(missing)[0]
        raise UserError(f"the rows have no '{name}'", where=f"task {task.name}", fix=did_you_mean(name, rows[0]))
    if exemplars and len(rows) <= exemplars:
        raise UserError(f"{exemplars} exemplars need more than {len(rows)} rows", where=f"task {task.name}")
    out = []
    for place, row in enumerate(rows):
        generator = rng(seed, "phrasing", task.name, place)
        for number in generator.permutation(len(task.phrasings))[:per_row]:
            question, answer = task.phrasings[number]
            others = [i for i in generator.permutation(len(rows))[: exemplars + 1] if i != place][:exemplars]
            shown = [f"{question.format(**rows[i])}\n{answer.format(**rows[i])}" for i in others]
            asked = "\n\n".join([*shown, question.format(**row)])
            meta = {"task": task.name, "cluster": task.cluster, "phrasing": int(number)}
            prompt = Prompt(content=(Message("user", asked),), meta=meta)
            out.append(Group(prompt=prompt, completions=(Completion(content=(Message("assistant", answer.format(**row)),)),)))
    return out


def split_by_task(groups: Sequence[Group], held_out: Sequence[str] | float, *, seed: int = 0) -> tuple[list[Group], list[Group]]:
    """(training, held out) by cluster: named clusters, or about that share of them; no task of a kind is on both sides."""
    clusters = sorted({str(g.prompt.meta["cluster"]) for g in groups})
    if isinstance(held_out, float | int):
        chosen = {c for c in clusters if keyed(seed, "cluster", c) < held_out * 2**63}
    else:
        chosen = set(held_out)
        for name in chosen - set(clusters):
            raise UserError(f"no task is of the kind '{name}'", where="held_out", fix=did_you_mean(name, clusters))
    held = [g for g in groups if g.prompt.meta["cluster"] in chosen]
    return [g for g in groups if g.prompt.meta["cluster"] not in chosen], held
