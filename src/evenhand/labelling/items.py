"""What people are asked to compare: the answers of a file, or of a run's arms, or the pairs that a run waits for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from evenhand.data.jsonl import read_groups
from evenhand.errors import UserError
from evenhand.judges import Comparison, paired
from evenhand.judges.config import Human
from evenhand.judges.label_log import answer_name, item_name
from evenhand.judges.verdict import settled
from evenhand.labelling import Form
from evenhand.results.files import read_json
from evenhand.results.finished_run import FinishedRun
from evenhand.run_experiment import prepare
from evenhand.seeding import keyed
from evenhand.stages.judge import JudgedBy, JudgeSpec
from evenhand.synthesis.comparison import Choose, ask, different
from evenhand.types import Completion, Group, Prompt


@dataclass(frozen=True, slots=True)
class Item:
    """One question with two answers or more, all different, whose labels are kept under `name`; `answers` are their names."""

    name: str
    group: Group
    answers: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every two answers, by place."""
        return list(combinations(range(len(self.answers)), 2))


def item(prompt: Prompt, answers: Sequence[Completion], scores: Sequence[float] = ()) -> Item:
    """The item of these answers; `scores` are what somebody else says of them."""
    texts = [c.text for c in answers]
    group = Group(prompt=prompt, completions=tuple(answers), scores=tuple(scores))
    return Item(item_name(prompt, texts), group, tuple(answer_name(t) for t in texts))


def from_groups(groups: Iterable[Group], form: Form, choose: Choose, seed: int) -> list[Item]:
    """The items of a file's groups: of each a pair, every pair, or the whole; prompts without two have none."""
    found: dict[str, Item] = {}
    for place, group in enumerate(groups):
        score = dict(zip((c.text for c in group.completions), group.scores, strict=True))
        for answers in _compared(group, form, choose, keyed(seed, "people", place)):
            one = item(group.prompt, answers, [score[c.text] for c in answers])
            found.setdefault(one.name, one)
    return list(found.values())


def _compared(group: Group, form: Form, choose: Choose, key: int) -> Iterator[list[Completion]]:
    if form is not Form.pair:
        answers = different(group)
        yield from [answers] if len(answers) > 1 else []
        return
    asked = ask(group, choose, key)
    for pair in asked.pairs:
        yield [asked.group.completions[i] for i in pair]


def from_run(run: FinishedRun, form: Form) -> list[Item]:
    """Of a finished run: every arm's answer with the baseline's, or all arms' answers to a prompt together; nobody sees whose."""
    if form is Form.pair:
        return of_pairs(*_against_baseline(run))
    found: dict[str, Item] = {}
    for seed in next(iter(run.answers.values())):
        for groups in zip(*(seeds[seed] for seeds in run.answers.values() if seed in seeds), strict=True):
            whole = Group(prompt=groups[0].prompt, completions=tuple(g.completions[0] for g in groups))
            for answers in _compared(whole, form, "all", 0):
                found.setdefault((one := item(whole.prompt, answers)).name, one)
    return list(found.values())


def of_pairs(comparisons: Sequence[Comparison], outcomes: Sequence[float] = ()) -> list[Item]:
    """The pairs that need somebody to look: equal and empty answers are settled by rule. `outcomes`: what a judge said."""
    found: dict[str, Item] = {}
    for c, outcome in zip(comparisons, outcomes or [math.nan] * len(comparisons), strict=True):
        if settled(c) is None:
            found.setdefault((one := item(c.prompt, (c.a, c.b), (outcome, 1 - outcome))).name, one)
    return list(found.values())


def _against_baseline(run: FinishedRun) -> tuple[list[Comparison], list[float]]:
    """Every answer with the baseline's, and what the run's judge said of it, NaN where its artifact is gone."""
    pairs: list[Comparison] = []
    outcomes: list[float] = []
    record = read_json(run.folder / "experiment.json")
    store, keys = run.folder / record["store"], {n["name"]: n["key"] for n in record["nodes"]}
    given = run.answers.get(run.baseline, {})
    for arm, seeds in run.answers.items():
        for seed, groups in seeds.items() if arm != run.baseline else ():
            if seed not in given:
                continue
            pairs += paired(groups, given[seed])
            path = store / keys.get(f"verdicts/{arm}/seed-{seed}", "") / "verdicts.json"
            outcomes += read_json(path)["outcome"] if path.is_file() else [math.nan] * len(groups)
    return pairs, outcomes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run waits for: its items, the file of labels that it reads, and how many people must label each."""

    items: list[Item]
    labels: Path
    annotators: int


def wanted(run: Path) -> Wanted | None:
    """The pairs of a run whose judge is people, as far as its answers are there; None where no judge of it is."""
    prepared = prepare(str(run), out=run)
    store, keys = prepared.store, {n.name: n.key for n in prepared.plan.nodes}
    judges: dict[str, Human] = {}
    pairs: list[Comparison] = []
    for node in prepared.plan.nodes:
        if not isinstance(node.spec, JudgeSpec) or not (people := _people(node.spec.judge)):
            continue
        judges |= people
        sides = [keys[node.inputs[role]] for role in ("answers", "baseline")]
        if store.has_all(sides):
            pairs += paired(*(read_groups(store.path(key) / "generations.jsonl") for key in sides))
    if not judges:
        return None
    if len(judges) > 1:
        raise UserError("people judge into several files", where=str(run), fix="give every `kind: human` the same `labels`")
    (one,) = judges.values()
    return Wanted(of_pairs(pairs), Path(one.labels), one.annotators)


def _people(by: JudgedBy) -> Mapping[str, Human]:
    """By their file: the people among whoever judges."""
    if isinstance(by.settings, Human):
        return {by.settings.labels: by.settings}
    return {path: one for member in by.members.values() for path, one in _people(member).items()}
