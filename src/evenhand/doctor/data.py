"""Data checks: rows that cannot be read, are empty, say the same twice, are not what their column says, or are judged on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from evenhand.data.clean import drop_exact
from evenhand.data.config import FOR_JUDGES
from evenhand.data.load import load
from evenhand.data.minhash import Grams
from evenhand.doctor.context import CheckContext, last_turn, spaced
from evenhand.doctor.examine import from_error
from evenhand.doctor.opened import Unavailable
from evenhand.doctor.registry import Finding, Severity, check, fail, graded, info, share, shortened, too_many, warn
from evenhand.errors import UserError
from evenhand.stages.data import DEFAULT_SIZES
from evenhand.synthesis.config import REVISED
from evenhand.types import Content, Group, content_text

FEW = 3
"""Rows that make a habit: one row that is about templates is not one that was rendered by one."""
MANGLED = re.compile("\ufffd|Ã[\x80-\xbf©¨±¶¼]|â€[™œ\x9d“”]|â\x80[\x99\x9c\x9d]")
MARKS = re.compile(
    r"<\|im_start\|>|<\|im_end\|>|<\|start_header_id\|>|<\|eot_id\|>|\[/?INST\]|<<SYS>>|<start_of_turn>|<end_of_turn>"
    r"|<\|assistant\|>|<\|user\|>|\n\n(?:Human|Assistant): |^### (?:Instruction|Response|Assistant|Human):",
    re.MULTILINE,
)
"""Marks that a chat template writes; in a row they mean that it has been rendered already."""


@check(
    "D1",
    "every source is read and recognised",
    why="a run cannot start without its rows, and a format that was guessed wrongly trains on the wrong columns",
    fix="correct the row or the source; `evenhand data describe FILE` shows what is recognised",
)
def readable(patient: CheckContext) -> Iterator[Finding]:
    if (unread := CheckContext.data.error(patient)) is not None:
        yield from_error(unread)
        return
    for line in patient.data[1]:
        yield info(line)
    made = {"preferences", "heldout_preferences"} if patient.experiment.annotate is not None else set()
    made |= set(REVISED) if patient.experiment.revise is not None else set()
    for name, arm in patient.arms.items():
        split = patient.split_of(arm)
        if split not in patient.splits and split not in made:
            known = ", ".join(patient.splits)
            yield fail(
                f"{name} learns from `{split}`, which the data do not have (they have {known})", fix=f"add `data.{split}:`"
            )
        elif split in patient.splits and not patient.splits[split]:
            share = (
                "`data.judge_share` (of so few rows nothing is left for the judge)" if split == FOR_JUDGES else "`data.holdout`"
            )
            yield fail(f"`{split}` has no rows", fix=f"check the source, its steps, and {share}")


@check(
    "D2",
    "no empty prompts and answers",
    why="an empty chosen answer teaches the model to say nothing; an empty prompt teaches it to speak unasked",
    fix="remove such rows from the file, or read with `on_bad_row: skip`",
)
def empty(patient: CheckContext) -> Iterator[Finding]:
    for split, groups in patient.answered.items():
        prompts = [g for g in groups if not g.prompt.text.strip()]
        if prompts and len(prompts) < len(groups):  # running text has no prompts at all, and means it
            yield fail(f"{share(len(prompts), len(groups))} prompts of {split} are empty", *_answers(prompts))
        best = [g for g in groups if g.completions and not content_text(_best(g)).strip()]
        if best:
            yield fail(f"{share(len(best), len(groups))} best answers of {split} are empty", *_prompts(best))
        others = [g for g in groups if g not in best and any(not c.text.strip() for c in g.completions)] if not best else []
        if others:
            severity = Severity.FAIL if len(others) > 0.2 * len(groups) else Severity.WARN
            seen = f"{share(len(others), len(groups))} rows of {split} have an empty worse answer"
            yield Finding(severity=severity, seen=seen, examples=_prompts(others))


@check(
    "D6",
    "few duplicates within a split",
    why="rows that come often weigh more than they should, and make a held-out figure look more certain than it is",
    fix="`clean: {duplicates: exact}` in the source",
)
def duplicates(patient: CheckContext) -> Iterator[Finding]:
    for split, groups in patient.answered.items():
        twice = [groups[i] for i, _ in drop_exact(groups).removed]
        words = f"rows of {split} repeat an earlier one"
        yield from too_many(len(twice), len(groups), words, *_prompts(twice), warn_above=0.01, fail_above=0.5)


@check(
    "D10",
    "answers do not repeat their prompt",
    why="a column that holds prompt and answer together teaches the model to repeat the question",
    fix="name the column that holds the answer alone: `columns: {completion: NAME}`, or cut the prompt off",
)
def repeated_prompt(patient: CheckContext) -> Iterator[Finding]:
    for split, groups in patient.answered.items():
        asked = [(g, last_turn(g)) for g in groups]
        rows = [g for g, said in asked if len(said) > 20 and any(c.text.lstrip().startswith(said) for c in g.completions)]
        words = f"rows of {split}: an answer begins with its whole prompt"
        yield from too_many(len(rows), len(groups), words, *_answers(rows), warn_above=0.05, fail_above=0.5)


@check(
    "D11",
    "answers are not already in their prompt",
    why="a prompt that ends with its answer makes the loss small and teaches copying",
    fix="end the prompt where the answer is to begin",
)
def leaked_answer(patient: CheckContext) -> Iterator[Finding]:
    for split, groups in patient.answered.items():
        answers = [(g, g.prompt.text.rstrip(), [c.text.strip() for c in g.completions]) for g in groups]
        rows = [g for g, asked, said in answers if any(len(text) > 20 and asked.endswith(text) for text in said)]
        words = f"rows of {split}: the prompt ends with an answer"
        yield from too_many(len(rows), len(groups), words, *_prompts(rows), warn_above=0.01, fail_above=0.2)


@check(
    "D12",
    "text was not rendered before",
    why="a template's marks inside the text are rendered a second time: the model then learns turns inside turns",
    fix="give turns as messages (role, content), or the text without marks",
)
def rendered_twice(patient: CheckContext) -> Iterator[Finding]:
    for split, groups in patient.answered.items():
        marked = [(g, m) for g in groups if not isinstance(g.prompt.content, str) and (m := _mark(g))]
        if len(marked) >= FEW:
            common = Counter(m for _, m in marked).most_common(1)[0][0].strip()
            words, rows = f"conversations of {split} contain template marks such as {common!r}", [g for g, _ in marked]
            yield from too_many(len(rows), len(groups), words, *_prompts(rows), warn_above=0.01, fail_above=0.2)


@check(
    "D13",
    "text was decoded rightly",
    why="characters decoded with the wrong encoding become noise that the model learns to write",
    fix="name the file's `encoding:`",
)
def mangled(patient: CheckContext) -> Iterator[Finding]:
    for split, groups in patient.answered.items():
        hits = [h for g in groups for t in (g.prompt.text, *(c.text for c in g.completions)) if (h := _around(MANGLED, t))]
        severity = graded(len(hits) / max(len(groups), 1), warn_above=0.02, fail_above=0.5)
        if severity:
            yield Finding(severity=severity, seen=f"{len(hits)} texts of {split} are mangled", examples=tuple(hits[:3]))


@check(
    "D14",
    "answers differ between rows",
    why="one answer to everything is a constant column, or a refusal that will be learned for every prompt",
    fix="check that `columns` names the answers",
)
def constant_answer(patient: CheckContext) -> Iterator[Finding]:
    for split, groups in patient.answered.items():
        if len(groups) < 20 or not split.endswith(("demonstrations", "preferences")):
            continue
        text, count = Counter(content_text(_best(g)).strip() for g in groups if g.completions).most_common(1)[0]
        if len(text) > 20 or count > 0.9 * len(groups):
            words = f"best answers of {split} are one and the same"
            yield from too_many(count, len(groups), words, shortened(text), warn_above=0.2, fail_above=0.5)


@check(
    "D15",
    "there are enough rows",
    why="a step that asks for more prompts than there are sees rows twice; few rows many times are learned by heart",
    fix="add rows, or lower `train.prompts_per_step`, `train.steps` or `train.epochs`",
)
def enough(patient: CheckContext) -> Iterator[Finding]:
    sizes = _sizes(patient)
    for name, arm in patient.arms.items():
        rows = sizes.get(patient.split_of(arm))
        if not rows:
            continue
        if arm.train.prompts_per_step > rows:
            yield warn(f"{name}: a step takes {arm.train.prompts_per_step} prompts, there are {rows}")
        epochs = arm.train.epochs or (arm.train.steps or 0) * arm.train.prompts_per_step / rows
        if epochs > 20 and not patient.methods[name].online:
            yield warn(f"{name}: every row is seen {epochs:.0f} times")


@check(
    "D16",
    "held-out prompts are enough for a verdict",
    why="with few prompts every difference between arms is inconclusive",
    fix="raise `evaluation.prompts`, name `data.heldout_prompts:`, or raise `data.holdout`",
)
def heldout(patient: CheckContext) -> Iterator[Finding]:
    if not patient.experiment.arms:
        raise Unavailable("nothing is compared")
    yield from _other_evaluations(patient)
    held, asked = patient.splits.get("heldout_prompts"), patient.experiment.evaluation.prompts
    if not held:
        yield fail(
            "there are no held-out prompts", fix="name `data.heldout_prompts:` or give `data.prompts:` to set some apart from"
        )
        return
    there = min(asked, _sizes(patient)["heldout_prompts"])
    if there < asked:
        yield warn(f"`evaluation.prompts` is {asked}, the data have {there}")
    if there < 30:
        worst = 1.96 * (0.25 / there) ** 0.5
        yield warn(f"{there} held-out prompts: a win rate is known to about ±{worst:.0%} at best")


def _other_evaluations(patient: CheckContext) -> Iterator[Finding]:
    """The prompts of every evaluation beside the comparison that are read from somewhere, read."""
    for name, asked in patient.experiment.evaluations.items():
        if asked.prompts is None or asked.benchmark is not None:  # whose questions are read with the file
            continue
        try:
            load(asked.prompts, where=f"evaluations.{name}.prompts")
        except UserError as error:
            yield from_error(error)


def _sizes(patient: CheckContext) -> dict[str, int]:
    """Rows per split as the run will have them: those of a world are made to order, and only the first of them are looked at."""
    e = patient.experiment
    sizes = {n: len(g) for n, g in patient.splits.items()}
    if not e.data.world:
        return sizes
    ordered = {**DEFAULT_SIZES, "heldout_prompts": e.evaluation.prompts, **e.data.sizes}
    ordered |= {name: split.count for name, split in e.splits.items() if split.rows}
    if FOR_JUDGES in sizes:  # about so many: whole prompts go to either side
        ordered[FOR_JUDGES] = round(e.data.judge_share * ordered["preferences"])
        ordered["preferences"] -= ordered[FOR_JUDGES]
    return {split: ordered.get(split, rows) for split, rows in sizes.items()}


def _best(group: Group) -> Content:
    scores = [(-1.0 if s != s else s) for s in group.scores]
    return group.completions[scores.index(max(scores))].content


def _mark(group: Group) -> str:
    texts = (group.prompt.text, *(c.text for c in group.completions))
    found = next((m for m in map(MARKS.search, texts) if m), None)
    return found.group() if found else ""


def _around(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return shortened(text[max(found.start() - 20, 0) : found.end() + 20]) if found else ""


def _prompts(groups: Sequence[Group]) -> tuple[str, ...]:
    return tuple(f"prompt {g.prompt.id}: {shortened(g.prompt.text)}" for g in groups[:3])


def _answers(groups: Sequence[Group]) -> tuple[str, ...]:
    return tuple(f"prompt {g.prompt.id}: {shortened(g.completions[0].text if g.completions else '')}" for g in groups[:3])


NGRAM = 13
QUOTED = 0.05
"""The share of rows below which shared words are phrases that many prompts have in common."""
COMPARED = 5000
"""Rows whose words are compared; whole prompts are compared in all rows."""


@check(
    "D17",
    "no held-out prompt is trained on",
    why="an arm that has seen the questions is judged on its memory; every figure of the report is then too high",
    fix="take them out of the training source with `clean: {by: prompt, against: [...]}`, or name other held-out prompts",
)
def overlap(patient: CheckContext) -> Iterator[Finding]:
    for held, ids in _heldout(patient).items():
        for split, groups in _seen(patient).items():
            shared = {g.prompt.id: g for g in groups if g.prompt.id in ids and g.prompt.text.strip()}
            if shared:
                examples = [shortened(g.prompt.text) for g in list(shared.values())[:3]]
                yield fail(f"{share(len(shared), len(ids))} prompts of {held} are also in {split}", *examples)


@check(
    "D18",
    "no held-out prompt is quoted in training",
    why="a question inside another text is as good as the question",
    fix=f"`clean: {{against: HELD-OUT SOURCE, ngram: {NGRAM}}}` in the training source",
)
def quoted(patient: CheckContext) -> Iterator[Finding]:
    held = spaced([g for g in patient.splits.get("heldout_prompts", ()) if len(last_turn(g).split()) >= NGRAM], COMPARED)
    if not held or patient.experiment.data.world:  # a world's own splits are apart by construction
        return
    ids, grams = {g.prompt.id for g in held}, Grams([last_turn(g) for g in held], NGRAM)
    for split, groups in _seen(patient).items():
        rows = [g for g in spaced(groups, COMPARED) if g.prompt.id not in ids]
        hits = [
            f for g in rows if (f := next(filter(None, map(grams.find, (g.prompt.text, *(c.text for c in g.completions)))), ""))
        ]
        words, shown = f"rows of {split} share {NGRAM} words in a row with a held-out prompt", dict.fromkeys(map(shortened, hits))
        yield from too_many(len(hits), len(rows), words, *shown, warn_above=QUOTED, fail_above=2.0)


def _heldout(patient: CheckContext) -> dict[str, set[str]]:
    """Ids of the held-out prompts that answers are asked for, and of held-out pairs."""
    asked = {"heldout_prompts": patient.splits.get("heldout_prompts", [])[: patient.experiment.evaluation.prompts]}
    asked["heldout_preferences"] = patient.splits.get("heldout_preferences", [])
    return {n: {g.prompt.id for g in groups} for n, groups in asked.items() if groups}


def _seen(patient: CheckContext) -> dict[str, list[Group]]:
    """Every split that something is trained on, with or without answers."""
    used = {patient.split_of(arm) for arm in patient.arms.values()}
    if patient.experiment.annotate is not None:
        used.add("prompts")
    return {n: g for n, g in patient.splits.items() if n in used}
