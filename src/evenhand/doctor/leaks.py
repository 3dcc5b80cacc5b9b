"""Checks that what judges an arm was not what trained it."""

from __future__ import annotations

from collections.abc import Iterator

from evenhand.data.minhash import Grams
from evenhand.doctor.context import CheckContext, last_turn, spaced
from evenhand.doctor.registry import Finding, check, fail, share, shortened, too_many
from evenhand.types import Group

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
