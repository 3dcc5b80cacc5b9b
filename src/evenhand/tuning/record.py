"""From a finished study to the record `tune.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evenhand.configfile.schema import Loaded, to_json
from evenhand.results.tuning_record import BehindBest, HeldBack, TrialRecord, TunedArmRecord, TuningRecord
from evenhand.runner.installed import versions
from evenhand.runner.state import RunState
from evenhand.spec import search_spaces
from evenhand.spec.tuning import Tuned, TunedArm
from evenhand.stages.validation_split import FILE
from evenhand.store.fingerprint import digest
from evenhand.tuning.measure import Behind, TrialOutcome, behind, best
from evenhand.tuning.study import Study


def record(study: Study, board: RunState, loaded: Loaded[Any]) -> TuningRecord:
    """Everything a reader needs to judge the tuning, from a board on which every trial has ended."""
    e, tune = study.experiment, study.tune
    return TuningRecord(
        name=e.name,
        description=e.description,
        source=Path(loaded.source).name,
        hashes={"given": digest(loaded.given), "effective": digest(loaded.effective)},
        versions={**versions(), **_optuna(tune.sampler)},
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
    return TunedArmRecord(
        method=study.arms[arm].method,
        space=to_json(space),
        space_in_words={name: search_spaces.words(dimension) for name, dimension in space.items()},
        given=to_json(given),
        given_tried=first is not None and bool(outcomes) and dict(outcomes[0].trial.settings) == first,
        chosen=chosen.trial.number if chosen is not None else None,
        settings=to_json(chosen.trial.settings) if chosen is not None else None,
        value=chosen.value if chosen is not None else None,
        ci95=chosen.ci95 if chosen is not None else None,
        alike=tuple(number for number, b in apart.items() if not b.told_apart),
        edges=tuple(search_spaces.edges(chosen.trial.settings, space)) if chosen is not None else (),
        trials=tuple(trial_record(study, o, apart.get(o.trial.number)) for o in outcomes),
    )


def trial_record(study: Study, outcome: TrialOutcome, lag: Behind | None) -> TrialRecord:
    """One trial; `lag` is its distance from the chosen one."""
    return TrialRecord(
        trial=outcome.trial.number,
        settings=to_json(outcome.trial.settings),
        status=outcome.status,
        error=outcome.error,
        value=outcome.value,
        ci95=outcome.ci95,
        behind=None if lag is None else BehindBest(difference=lag.difference, ci95=lag.ci95, p_holm=lag.p_holm),
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


def _optuna(sampler: str) -> dict[str, str]:
    import importlib.metadata

    return {"optuna": importlib.metadata.version("optuna")} if sampler == "tpe" else {}
