"""What a comparison says of how its arms were tuned: the budget of each, and where they were not treated alike."""

from __future__ import annotations

from typing import Any

from evenhand.configfile.schema import to_json
from evenhand.data.jsonl import read_groups
from evenhand.plan.training import APART
from evenhand.results.fairness import by_value
from evenhand.results.files import carried
from evenhand.results.paths import without_folders
from evenhand.results.record_parts import TunedArmSummary, TuningSummary
from evenhand.results.run_artifacts import RunArtifacts
from evenhand.spec import search_spaces
from evenhand.spec.experiment import Experiment
from evenhand.stages.validation_split import FILE, SPLIT


def tuning(done: RunArtifacts) -> TuningSummary | None:
    """The section `tuning` of `results.json`; None where nothing was tuned.

    `shared_prompts` counts the prompts that chose settings and also judge: anything but 0 makes tuned arms look better than
    they are.
    """
    e = done.plan.experiment
    if e.tuned is None:
        return None
    arms = {name: _arm(name, e) for name in e.tuned.arms if name in e.arms}
    names = _set_apart(done)
    judged = {name for arm in done.arms for seed in done.seeds(arm) for name in done.verdicts[arm][seed]["prompt_id"]}
    return carried(
        TuningSummary, e.tuned, measure=without_folders(e.tuned.measure), arms=arms,
        not_tuned=tuple(a.name for a in e.all_arms().values() if a.trained and a.name not in arms),
        shared_prompts=len(names & judged) if names is not None else None,
    )  # fmt: skip


def _arm(name: str, e: Experiment) -> TunedArmSummary:
    assert e.tuned is not None
    found = e.tuned.arms[name]
    words = {setting: search_spaces.words(dimension) for setting, dimension in found.space.items()}
    return carried(TunedArmSummary, found, settings=to_json(found.settings), space=words, changed=changed(name, e))


def changed(name: str, e: Experiment) -> dict[str, Any]:
    """The settings of an arm that are no longer those that tuning chose, as they are now."""
    assert e.tuned is not None
    arm, chosen = e.arm(name), e.tuned.arms[name].settings
    known = {setting: d for setting, d in e.tuned.arms[name].space.items() if setting in search_spaces.tunable(arm)}
    now = to_json(search_spaces.given(arm, e, known))
    return {setting: now.get(setting) for setting, value in to_json(chosen).items() if now.get(setting) != value}


def tuned_alike(done: RunArtifacts) -> list[str]:
    """The sentence about tuning, where all trained arms were tuned alike."""
    e = done.plan.experiment
    if e.tuned is None or untuned(done):
        return []
    trials = next(iter(e.tuned.arms.values())).trials
    return [
        f"Every trained arm was tuned before: {trials} trials each, by {e.tuned.measure} on the same {e.tuned.prompts} "
        "validation prompts, none of which is trained on or judged here, under seeds that are not among these."
    ]


def untuned(done: RunArtifacts) -> list[str]:
    """How tuning differed between trained arms, and what changed since; nothing where nothing was tuned."""
    e = done.plan.experiment
    if e.tuned is None:
        return []
    trained = [a.name for a in e.all_arms().values() if a.trained]
    trials = {name: e.tuned.arms[name].trials if name in e.tuned.arms else "none" for name in trained}
    out = [f"tuning trials: {by_value(trials)}"] if len(set(trials.values())) > 1 else []
    for name in trained:
        if name in e.tuned.arms and (now := changed(name, e)):
            before = e.tuned.arms[name].settings
            words = ", ".join(f"{setting} {before[setting]} (now {value})" for setting, value in now.items())
            out.append(f"changed after tuning: {name}: {words}")
    if (name := _name(done)) != e.tuned.validation:
        why = "the data are others now" if name else "the section `tune` is gone, so they are trained on"
        out.append(f"the validation prompts that settings were chosen on are not the ones set apart here: {why}")
    return out


def _apart(done: RunArtifacts) -> bool:
    """Whether prompts are set apart here."""
    return done.plan.experiment.tune is not None and done.has(APART)


def _name(done: RunArtifacts) -> str:
    """The name of the prompts that are set apart, all together."""
    return done.load(APART, FILE)["name"] if _apart(done) else ""


def _set_apart(done: RunArtifacts) -> set[str] | None:
    """Their ids."""
    path = done.store.path(done.plan[APART].key) / f"{SPLIT}.jsonl" if _apart(done) else None
    return None if path is None else {g.prompt.id for g in read_groups(path)}
