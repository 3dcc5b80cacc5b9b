"""The content of `tune.json`: every trial of every arm, what was chosen, and how sure the choice is. No clock in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenhand.configfile.schema import Loaded, to_json
from evenhand.runner.job import versions
from evenhand.runner.state import RunState
from evenhand.spec import search_spaces
from evenhand.spec.tuning import Tuned, TunedArm
from evenhand.stages.validation_split import FILE
from evenhand.store.fingerprint import digest
from evenhand.tuning.measure import Behind, TrialOutcome, behind, best
from evenhand.tuning.study import Study


def record(study: Study, board: RunState, loaded: Loaded[Any]) -> dict[str, Any]:
    """Everything a reader needs to judge the tuning, from a board on which every trial has ended."""
    e, tune = study.experiment, study.tune
    return {
        "name": e.name,
        "description": e.description,
        "source": loaded.source,
        "hashes": {"given": digest(loaded.given), "effective": digest(loaded.effective)},
        "versions": {**versions(), **_optuna(tune.sampler)},
        "measure": tune.measure,
        "baseline": e.baseline_arm,
        "trials": tune.trials,
        "seeds": list(tune.seeds),
        "prompts": tune.prompts,
        "validation": _validation(study),
        "sampler": tune.sampler,
        "steps": tune.steps,
        "comparison": {"seeds": list(e.seeds), "prompts": e.evaluation.prompts},
        "arms": {arm: arm_record(study, arm, study.outcomes(arm, board) or []) for arm in study.spaces},
        "left_out": search_spaces.left_out(e),
    }


def arm_record(study: Study, arm: str, outcomes: list[TrialOutcome]) -> dict[str, Any]:
    """One arm's trials. `chosen` is the best trial's number, None where every trial failed."""
    space, chosen = study.spaces[arm], best(outcomes)
    given = search_spaces.given(study.arms[arm], study.experiment, space)
    apart = behind(outcomes, chosen) if chosen is not None else {}
    first = study.as_given(arm)
    return {
        "method": study.arms[arm].method,
        "space": to_json(space),
        "space_in_words": {name: search_spaces.words(dimension) for name, dimension in space.items()},
        "given": to_json(given),
        "given_tried": first is not None and bool(outcomes) and dict(outcomes[0].trial.settings) == first,
        "chosen": chosen.trial.number if chosen is not None else None,
        "settings": to_json(chosen.trial.settings) if chosen is not None else None,
        "value": chosen.value if chosen is not None else None,
        "ci95": list(chosen.ci95) if chosen is not None and chosen.ci95 else None,
        "alike": [number for number, b in apart.items() if not b.told_apart],
        "edges": search_spaces.edges(chosen.trial.settings, space) if chosen is not None else [],
        "trials": [trial_record(study, o, apart.get(o.trial.number)) for o in outcomes],
    }


def trial_record(study: Study, outcome: TrialOutcome, against_best: Behind | None) -> dict[str, Any]:
    """One trial, counted from 1. `behind` is its distance from the chosen one, None for that one and for a failed one."""
    lag = None
    if against_best is not None:
        lag = {"difference": against_best.difference, "ci95": list(against_best.ci95), "p_holm": against_best.p_holm}
    return {
        "trial": outcome.trial.number,
        "settings": to_json(outcome.trial.settings),
        "status": outcome.status,
        "error": outcome.error,
        "value": outcome.value,
        "ci95": list(outcome.ci95) if outcome.ci95 else None,
        "behind": lag,
        "ledger": dict(outcome.ledger) if outcome.ledger is not None else None,
        "keys": [study.nodes.by_name[name].key for name in outcome.trial.fits.values()],
    }


def tuned(found: Mapping[str, Any], study_spaces: Mapping[str, Any]) -> Tuned:
    """What `tuned.yaml` says of a finished tuning."""
    arms = {name: _arm(raw, study_spaces[name]) for name, raw in found["arms"].items() if raw["chosen"] is not None}
    return Tuned(
        measure=found["measure"], sampler=found["sampler"], seeds=tuple(found["seeds"]), prompts=found["prompts"],
        steps=found["steps"], validation=found["validation"], arms=arms,
    )  # fmt: skip


def _arm(raw: Mapping[str, Any], space: Any) -> TunedArm:
    low, high = raw["ci95"]
    given = raw["trials"][0]["value"] if raw["given_tried"] else None
    return TunedArm(
        trials=len(raw["trials"]), failed=sum(t["status"] == "failed" for t in raw["trials"]), trial=raw["chosen"],
        settings=raw["settings"], space=space, value=_short(raw["value"]), ci95=(_short(low), _short(high)),
        as_given=None if given is None else _short(given), alike=len(raw["alike"]), edges=tuple(raw["edges"]),
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
