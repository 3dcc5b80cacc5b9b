"""The side of `evenhand label` that people are asked on: what they see, where it is kept, what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evenhand.cli.files import refuse_same
from evenhand.cli.label_judged import Answers, PairOptions
from evenhand.configfile.text_file import read_text
from evenhand.display import spelled_out
from evenhand.errors import UserError
from evenhand.labelling import Form
from evenhand.serve.server import check_installed, serve
from evenhand.store.locks import locked

if TYPE_CHECKING:
    from evenhand.labelling.items import Item
    from evenhand.labelling.session import LabellingSession
    from evenhand.synthesis.comparison import Choose


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """How the page is: see the command's options."""

    form: Form
    guidelines: Path | None
    people: int | None
    again: float
    port: int
    log: Path | None


@dataclass(frozen=True, slots=True)
class _Source:
    """What is asked: the items, the file of labels, the people per item, and what to do with the labels afterwards."""

    items: list[Item]
    log: Path
    people: int
    then: str


def by_people(file: Path, out: Path | None, answers: Answers, page: PageOptions, made: PairOptions) -> None:
    """Serves the page until Ctrl-C, then writes `out`, which is also brought up to date when the page starts."""
    from evenhand.judges.label_log import LabelLog
    from evenhand.labelling import app
    from evenhand.labelling.session import LabellingSession

    check_installed()
    source = _source(file, out, answers, page, made.pairs.chosen, made.seed)
    lock = source.log.with_name(f".{source.log.name}.lock")
    source.log.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock, lambda: _refuse(source.log)):
        session = LabellingSession(
            source.items, LabelLog(source.log), form=page.form, people=source.people, again=page.again, seed=made.seed
        )
        told = read_text(page.guidelines) if page.guidelines is not None else ""
        shown = app.Page(title=file.stem or str(file), guidelines=told, others=_others(source.items, file))
        print(f"{len(source.items)} items; every click is kept in {source.log}")
        for line in _ended(session, source, out, page.form, made) if session.labels() else ():
            print(spelled_out(line))
        serve(app.build(session, shown), app.policy(), port=page.port)
        for line in _ended(session, source, out, page.form, made):
            print(spelled_out(line))


def _refuse(log: Path) -> None:
    raise UserError("another page writes this file", where=str(log), fix="use that page: several people may at once")


def _source(
    file: Path, out: Path | None, answers: Answers, page: PageOptions, choose: Choose, seed: int
) -> _Source:  # fmt: skip
    from evenhand.labelling import items as asked
    from evenhand.results.finished_run import is_run, open_run

    if (file / "experiment.json").is_file():
        wanted = asked.wanted(file)
        if wanted is not None:
            if page.form is not Form.pair:
                raise UserError("a run's judge compares pairs", where="--form", fix="leave it out")
            items = _some(wanted.items, file, "its arms have not answered yet: run it first")
            people = wanted.annotators if page.people is None else page.people
            return _Source(items, page.log or wanted.labels, people, f"evenhand run {file}")
        if not is_run(file):
            raise UserError("this run has no results yet", where=str(file), fix="finish it, or give it `judge: {kind: human}`")
        log = page.log or file / "human-labels.jsonl"
        items = _some(asked.from_run(open_run(file), page.form), file, "no two arms answered differently")[: answers.limit]
        then = f"evenhand judge {file} --judge '{{kind: human, labels: {log}, annotators: 0}}'"
        return _Source(items, log, 1 if page.people is None else page.people, then)
    if out is None:
        raise UserError("there is nowhere to write the labels", fix="add --out PAIRS.jsonl")
    if choose == "best_worst":
        raise UserError("who is best is what people are asked", where="--pairs best-worst", fix="use random or all")
    refuse_same(file, out)
    groups = answers.read(out.with_name(f"{out.name}.kept"))
    items = _some(asked.from_groups(groups, page.form, choose, seed), file, "give prompts with different answers")
    log = page.log or out.with_name(f"{out.name}.labels")
    return _Source(items, log, 1 if page.people is None else page.people, f"data: {{preferences: {out}}} in an experiment")


def _some(items: list[Item], file: Path, fix: str) -> list[Item]:
    if not items:
        raise UserError("there is nothing to compare", where=str(file), fix=fix)
    return items


def _others(items: Sequence[Item], file: Path) -> dict[str, list[tuple[float, ...]]]:
    """What the file, or the run's judge, says of the same answers."""
    if all(s != s for i in items for s in i.group.scores):
        return {}
    return {"the run's judge" if file.is_dir() else "the file": [i.group.scores for i in items]}


def _ended(session: LabellingSession, source: _Source, out: Path | None, form: Form, made: PairOptions) -> list[str]:
    """What was said, what is left to be said, and what came of it."""
    from evenhand.labelling.write import preferences, write

    said = session.labels()
    names = list(dict.fromkeys(label.annotator for label in said))
    known = {label.item for label in said if label.scores}
    by = "1 person" if len(names) == 1 else f"{len(names)} people"
    lines = [f"{len(said)} labels by {by} on {len(known)} of {len(source.items)} items: {source.log}"]
    if out is None:
        return [*lines, f"next: {source.then}"]
    found = preferences(source.items, source.log, form, said, made.labels.value, made.margin)
    left = ", ".join(f"{count} {reason}" for reason, count in found.left_out.items())
    lines += [f"left out: {left}"] if left else []
    if not found.pairs:
        return [*lines, f"nothing is written to {out} yet: no answer is preferred to another"]
    beside = write(out, found, source.items, said)
    return [*lines, f"written: {out} ({len(found.pairs)} prompts with preferences), {beside}", f"next: {source.then}"]
