"""The run's pairs and answers as JSON lines in the formats that other tools train on, and that our own readers read again.

Preference pairs are `{"prompt", "chosen", "rejected"}`, single answers that an arm learned to be good or bad `{"prompt",
"completion", "label"}`, answers to held-out prompts `{"prompt", "completion"}`: strings where the prompt is verbatim
text, lists of messages where it is a conversation. Ratings, soft labels and whatever the data said of a prompt stand in columns
beside them, which other tools ignore.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenhand.configfile.schema import from_json
from evenhand.data import chat_cleaning
from evenhand.data.convert import MARGIN, SOFT, pairs_of
from evenhand.data.formats import FORMATS
from evenhand.data.jsonl import read_groups, write_rows
from evenhand.errors import UserError, did_you_mean
from evenhand.export.subject import Subject, artifact
from evenhand.report.run_data import RunData
from evenhand.results.files import read_json
from evenhand.types import Completion, Content, Finish, Group

PAIRS, HELDOUT, LABELLED, SAMPLES = "pairs.jsonl", "heldout_pairs.jsonl", "labelled.jsonl", "samples.jsonl"
RESERVED = frozenset(name for f in FORMATS.values() for name in (*f.fields, *f.optional)) | {
    "id", "scores", "prompt_id", "arm", "seed", "finish", "judge_score", "outcome", "chosen_probability",
}  # fmt: skip
"""Columns that mean something to readers; of the data's own columns, those with such a name get `meta_` before it."""


@dataclass(frozen=True, slots=True)
class Written:
    """What went into a file, and in `lost` how many rows had something that the format cannot say."""

    path: Path
    rows: int
    lost: Mapping[str, int] = field(default_factory=dict)


def pairs(groups: Iterable[Group], lost: Counter[str]) -> Iterator[dict[str, Any]]:
    """Every pair of every group, the better answer first; what cannot be said is counted in `lost`."""
    for group in groups:
        lost["answers beyond two: every pair of the ranking is a row"] += len(group.completions) > 2
        lost["left out: the answers tie"] += not pairs_of(group) and len(group.completions) > 1
        for pair in pairs_of(group):
            chosen, rejected = pair.completions
            if not (chosen.text.strip() and rejected.text.strip()):
                lost["left out: an answer is empty"] += 1
                continue
            lost["an answer was cut at the limit, which text does not show"] += Finish.LENGTH in (chosen.finish, rejected.finish)
            row: dict[str, Any] = {"prompt": side(group.prompt.content)}
            row |= {"chosen": answer(group, chosen), "rejected": answer(group, rejected)}
            row |= columns(group, lost)
            if SOFT in pair.parts:
                lost["soft labels: other tools take them for certain (column chosen_probability)"] += 1
                row["chosen_probability"] = pair.parts[SOFT][0]
            if MARGIN in pair.parts:
                row["margin"] = pair.parts[MARGIN][0]
            if pair.scores != (1.0, 0.0):
                row |= {"chosen_score": pair.scores[0], "rejected_score": pair.scores[1]}
            yield row


def labelled(groups: Iterable[Group], lost: Counter[str]) -> Iterator[dict[str, Any]]:
    """Single answers labelled good (score above 0) or bad."""
    for group in groups:
        (completion,), (score,) = group.completions, group.scores
        if not completion.text.strip():
            lost["left out: an answer is empty"] += 1
            continue
        row = {"prompt": side(group.prompt.content), "completion": answer(group, completion), "label": score > 0}
        yield row | columns(group, lost)


def samples(
    groups: Iterable[Group], arm: str, seed: int, verdicts: Mapping[str, Any], lost: Counter[str]
) -> Iterator[dict[str, Any]]:
    """An arm's answers to the held-out prompts, with the judge's score and the outcome against the baseline where known."""
    for i, group in enumerate(groups):
        for completion in group.completions:
            if not completion.text.strip():
                lost["left out: an answer is empty"] += 1
                continue
            row: dict[str, Any] = {"prompt": side(group.prompt.content), "completion": answer(group, completion)}
            row |= {"arm": arm, "seed": seed, "prompt_id": group.prompt.id, "finish": completion.finish.value}
            for name, key in (("judge_score", "gold"), ("outcome", "outcome")):
                value = (verdicts.get(key) or [None] * (i + 1))[i]
                row |= {name: value} if value is not None else {}
            yield row | columns(group, lost)


def side(content: Content) -> str | list[dict[str, str]]:
    return content if isinstance(content, str) else [m.as_dict() for m in content]


def answer(group: Group, completion: Completion) -> str | list[dict[str, str]]:
    """An answer in the form of its prompt: text after text, an assistant's turn in a conversation."""
    if isinstance(group.prompt.content, str):
        return completion.text
    content = completion.content
    return side(content) if not isinstance(content, str) else [{"role": "assistant", "content": content}]


def columns(group: Group, lost: Counter[str]) -> dict[str, Any]:
    """What the data said of the prompt, a column each, and what its template is given."""
    prompt = group.prompt.content
    lost["the prompt looks like a transcript: read it with `transcripts: verbatim`"] += isinstance(
        prompt, str
    ) and chat_cleaning.is_transcript(prompt)
    told = {f"meta_{k}" if k in RESERVED else k: v for k, v in group.prompt.meta.items() if v is not None}
    options = dict(group.prompt.options)
    told |= {"tools": options.pop("tools")} if "tools" in options else {}
    return told | ({"chat_template_kwargs": options} if options else {})


def write_pairs(run: RunData, out: Path, arm: Subject | None = None) -> list[Written]:
    """The run's preference pairs, held-out ones in a file of their own; with `arm`, exactly the rows that it learned from.

    Raises UserError where there are none: for an arm that learned from something else, and where the store is gone.
    """
    if arm is None:
        inputs = {role: path for role in ("data", "preferences") if (path := artifact(run, role)) is not None}
        found = {PAIRS: _split(inputs, "preferences"), HELDOUT: _split(inputs, "heldout_preferences")}
        if not inputs:
            raise _gone(run)
    else:
        rows = learned_from(arm)
        singles = all(len(g.completions) == 1 for g in rows)
        found = {LABELLED if singles else PAIRS: rows}
    written = [_write(out / name, labelled if name == LABELLED else pairs, groups) for name, groups in found.items() if groups]
    if not any(w.rows for w in written):
        raise UserError("the run has no preference pairs", where=str(run.folder), fix="--samples writes its arms' answers")
    return written


def learned_from(subject: Subject) -> list[Group]:
    """The groups a trained arm learned from, prompts that validated left out: pairs, or for a binary method single answers."""
    from evenhand import methods
    from evenhand.stages.fit import FitSpec
    from evenhand.stages.offline import learned_from as groups_of
    from evenhand.stages.validate import held_out

    if subject.spec.get("method") not in methods.METHODS:
        raise UserError(f"{subject.name} was not trained here", where="--arm", fix="leave --arm out for the run's own pairs")
    spec = from_json(FitSpec, subject.spec)
    made = spec.build()
    if made.online or made.data not in (methods.PREFERENCES, methods.BINARY, methods.COMPARISONS):
        source = "its own samples, which a run does not keep" if made.online else f"{made.data}, not pairs"
        raise UserError(f"{subject.name} learned from {source}", where="--arm", fix="leave --arm out for the run's own pairs")
    inputs = {role: path for role, given in subject.meta["inputs"].items() if (path := artifact(subject.run, given["name"]))}
    if "data" not in inputs:
        raise _gone(subject.run)
    return groups_of(spec, inputs, made, without=held_out(spec, inputs, made))


def write_samples(run: RunData, out: Path, arm: str | None = None) -> Written:
    """The answers of every arm and seed (or of one arm) to the held-out prompts, in one file."""
    places = sorted(run.folder.glob("generations/*/seed-*/generations.jsonl"))
    if places and arm is not None:
        known = sorted({path.parts[-3] for path in places})
        if arm not in known:
            raise UserError(f"no arm called '{arm}' has answers", where=str(run.folder), fix=did_you_mean(arm, known))
        places = [path for path in places if path.parts[-3] == arm]
    if not places:
        raise UserError("has no answers", where=str(run.folder), fix="run `evenhand run` on it again; finished stages are reused")
    lost: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        for path in places:
            name, seed = path.parts[-3], int(path.parts[-2].removeprefix("seed-"))
            yield from samples(read_groups(path), name, seed, _verdicts(run, name, seed), lost)

    return Written(out / SAMPLES, write_rows(out / SAMPLES, rows()), +lost)


def _write(path: Path, make: Any, groups: Sequence[Group]) -> Written:
    lost: Counter[str] = Counter()
    return Written(path, write_rows(path, make(groups, lost)), +lost)


def _verdicts(run: RunData, arm: str, seed: int) -> Mapping[str, Any]:
    folder = artifact(run, f"verdicts/{arm}/seed-{seed}")
    path = folder / "verdicts.json" if folder is not None else None
    return read_json(path) if path is not None and path.is_file() else {}


def _split(inputs: Mapping[str, Path], split: str) -> list[Group]:
    source = inputs.get("preferences") or inputs.get("data")
    path = source / f"{split}.jsonl" if source is not None else None
    return read_groups(path) if path is not None and path.is_file() else []


def _gone(run: RunData) -> UserError:
    store = run.experiment.get("store", "the store")
    return UserError(
        "the run's data are not there", where=f"{run.folder}/{store}", why="the run directory points at its store",
        fix="move the store back, or run `evenhand run` on the directory again",
    )  # fmt: skip
