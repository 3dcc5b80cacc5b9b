"""From a finished study to the record `tune.json` and the experiment `tuned.yaml`."""

from __future__ import annotations

import importlib.metadata
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from evenhand.configfile.document import KeyPath, parse
from evenhand.configfile.schema import Loaded, to_json
from evenhand.errors import UserError
from evenhand.results.tuning_record import BehindBest, HeldBack, TrialRecord, TunedArmRecord, TuningRecord
from evenhand.runner.installed import versions
from evenhand.runner.state import RunState
from evenhand.spec import search_spaces
from evenhand.spec.experiment import Experiment
from evenhand.spec.search_spaces import space_of
from evenhand.spec.tuning import Tuned, TunedArm
from evenhand.stages.validation_split import FILE
from evenhand.store.fingerprint import digest
from evenhand.tuning.study import Study, TrialOutcome, behind, best
from evenhand.tuning.trials import with_settings

WIDTH = 120


def tuned_yaml(loaded: Loaded[Any], experiment: Experiment, found: TuningRecord) -> str:
    """A complete experiment file; `evenhand run` takes it as it is."""
    spaces = {name: space_of(arm, experiment) for name, arm in experiment.all_arms().items()}
    chosen = {name: raw.settings for name, raw in found.arms.items() if raw.settings is not None}
    arms = {name: with_settings(raw, chosen.get(name, {})) for name, raw in experiment.arms.items()}
    given = {key: value for key, value in loaded.given.items() if key not in ("arms", "tune", "tuned")}
    data = {
        **given,
        "arms": arms,
        "tune": loaded.given.get("tune") or to_json(experiment.tune),
        "tuned": _without_defaults(to_json(tuned(found, spaces))),
    }
    notes: dict[KeyPath, str] = {("arms", name): _note(name, found) for name in experiment.arms}
    notes["tune",] = "Its prompts stay out of training in this comparison too; its seeds are not among the comparison's."
    notes["tuned",] = "Written by `evenhand tune`; the report shows it."
    head = (
        f"# Made by `evenhand tune` from {found.source}: {found.trials} trials for each of {len(found.arms)} arms, "
        f"by {found.measure}\n# on {found.prompts} validation prompts under seed {', '.join(map(str, found.seeds))}.\n"
    )
    text = head + commented(to_json(data), notes)
    if parse(text, "tuned.yaml").data != to_json(data):
        raise ValueError("tuned.yaml does not read back as what was written")
    return text


def _note(arm: str, found: TuningRecord) -> str:
    raw = found.arms.get(arm)
    if raw is None:
        return f"Not tuned: {found.left_out[arm]}."
    if raw.chosen is None or raw.ci95 is None:
        return f"Not tuned: all of its {len(raw.trials)} trials failed. These are the settings that were given."
    low, high = raw.ci95
    alike = f" {len(raw.alike)} others cannot be told from it." if raw.alike else ""
    edges = "".join(f" {edge}." for edge in raw.edges)
    return f"Trial {raw.chosen} of {len(raw.trials)}: {raw.value:.3g} ({low:.3g} to {high:.3g}).{alike}{edges}"


def _without_defaults(value: Any) -> Any:
    """Nothing that says nothing: null, and empty lists."""
    if isinstance(value, Mapping):
        return {k: _without_defaults(v) for k, v in value.items() if v is not None and v != []}
    return value


def commented(data: Mapping[str, Any], notes: Mapping[KeyPath, str], path: KeyPath = ()) -> str:
    """YAML with notes above the keys they are about; what fits into a line stands in one, other mappings are opened up.

    >>> print(commented({"a": {"b": {"c": [1]}}, "d": 2}, {("a", "b"): "why"}), end="")
    a:
      # why
      b: {c: [1]}
    d: 2
    """
    lines = []
    for key, value in data.items():
        here = (*path, key)
        lines += [f"# {notes[here]}\n"] if here in notes else []
        line = f"{dumped(key)}: {dumped(value)}\n"
        noted = any(len(p) > len(here) and p[: len(here)] == here for p in notes)
        if isinstance(value, Mapping) and value and (noted or len(line) > WIDTH):
            line = f"{dumped(key)}:\n" + textwrap.indent(commented(value, notes, here), "  ")
        lines.append(line)
    return "".join(lines)


class _Dumper(yaml.SafeDumper):
    """Quotes text that our reader, whose YAML is the 1.2 core schema, would not read back as the same text."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if _reads_back(text) else '"')


def _reads_back(text: str) -> bool:
    try:
        return parse(text, "text").data == text
    except UserError:
        return True  # not plain text at all; PyYAML quotes it by itself


_Dumper.add_representer(str, _text)


def dumped(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf, default_flow_style=True)
    return text.removesuffix("...\n").strip()


def record(study: Study, board: RunState, loaded: Loaded[Any]) -> TuningRecord:
    """Everything a reader needs to judge the tuning, from a board on which every trial has ended."""
    e, tune = study.experiment, study.tune
    return TuningRecord(
        name=e.name,
        description=e.description,
        source=Path(loaded.source).name,
        hashes={"given": digest(loaded.given), "effective": digest(loaded.effective)},
        versions=versions() | ({"optuna": importlib.metadata.version("optuna")} if tune.sampler == "tpe" else {}),
        measure=tune.measure,
        baseline=e.baseline_arm,
        trials=tune.trials,
        seeds=tune.seeds,
        prompts=tune.prompts,
        validation=_validation(study),
        sampler=tune.sampler,
        steps=tune.steps,
        comparison=HeldBack(seeds=e.seeds, prompts=e.evaluation.prompts),
        arms={arm: arm_record(study, arm, study.outcomes(arm, board) or []) for arm in study.spaces},
        left_out=search_spaces.left_out(e),
    )


def arm_record(study: Study, arm: str, outcomes: list[TrialOutcome]) -> TunedArmRecord:
    """One arm's trials."""
    space, chosen = study.spaces[arm], best(outcomes)
    given = search_spaces.given(study.arms[arm], study.experiment, space)
    apart = behind(outcomes, chosen) if chosen is not None else {}
    first = study.as_given(arm)
    how: dict[str, Any] = {}
    if chosen is not None:
        settings, edges = chosen.trial.settings, tuple(search_spaces.edges(chosen.trial.settings, space))
        how = {
            "chosen": chosen.trial.number,
            "settings": to_json(settings),
            "value": chosen.value,
            "ci95": chosen.ci95,
            "edges": edges,
        }
    return TunedArmRecord(
        method=study.arms[arm].method,
        space=to_json(space),
        space_in_words={name: search_spaces.words(dimension) for name, dimension in space.items()},
        given=to_json(given),
        given_tried=first is not None and bool(outcomes) and dict(outcomes[0].trial.settings) == first,
        alike=tuple(number for number, b in apart.items() if not b.told_apart),
        trials=tuple(trial_record(study, o, apart.get(o.trial.number)) for o in outcomes),
        **how,
    )


def trial_record(study: Study, outcome: TrialOutcome, lag: BehindBest | None) -> TrialRecord:
    """One trial; `lag` is its distance from the chosen one."""
    return TrialRecord(
        trial=outcome.trial.number,
        settings=to_json(outcome.trial.settings),
        status=outcome.status,
        error=outcome.error,
        value=outcome.value,
        ci95=outcome.ci95,
        behind=lag,
        ledger=dict(outcome.ledger) if outcome.ledger is not None else None,
        keys=tuple(study.nodes.by_name[name].key for name in outcome.trial.fits.values()),
    )


def tuned(found: TuningRecord, study_spaces: Mapping[str, Any]) -> Tuned:
    """What `tuned.yaml` says of a finished tuning."""
    arms = {name: _arm(arm, study_spaces[name]) for name, arm in found.arms.items() if arm.chosen is not None}
    return Tuned(
        measure=found.measure, sampler=found.sampler, seeds=found.seeds, prompts=found.prompts, steps=found.steps,
        validation=found.validation, arms=arms,
    )  # fmt: skip


def _arm(arm: TunedArmRecord, space: Any) -> TunedArm:
    assert arm.chosen is not None
    assert arm.settings is not None
    assert arm.value is not None
    assert arm.ci95 is not None
    return TunedArm(
        trials=len(arm.trials), failed=arm.failed, trial=arm.chosen, settings=arm.settings, space=space,
        value=_short(arm.value), ci95=(_short(arm.ci95[0]), _short(arm.ci95[1])),
        as_given=None if arm.as_given is None else _short(arm.as_given), alike=len(arm.alike), edges=arm.edges,
    )  # fmt: skip


def _short(value: float) -> float:
    """Four digits for the experiment file; `tune.json` has them all."""
    return float(f"{value:.4g}")


def _validation(study: Study) -> str:
    """The name of the validation prompts, all together."""
    key = next((n.key for n in study.nodes.by_name.values() if n.kind == "validation_split"), None)
    if key is None or not study.store.has(key):
        return ""
    return study.store.read_json(key, FILE)["name"]
