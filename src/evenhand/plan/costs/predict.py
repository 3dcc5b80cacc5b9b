"""The costs of a plan: a prediction for every stage that is still to be made, what was spent on those that are there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from evenhand.errors import UserError
from evenhand.plan.costs import keep
from evenhand.plan.costs.calibration import calibrated
from evenhand.plan.costs.forecast import PlanCosts, StageForecast
from evenhand.plan.costs.machine import Machine
from evenhand.plan.costs.probe import probe
from evenhand.plan.costs.remedies import fitting
from evenhand.plan.costs.stage import PREDICTED_KINDS, Predictor, precision
from evenhand.plan.graph import Node
from evenhand.plan.parameter_count import config_of
from evenhand.plan.plan import Plan
from evenhand.stages.fit import FitSpec
from evenhand.store import spent
from evenhand.store.store import Store

ROOM = 0.95
"""Share of the memory that a stage may take."""
_log = logging.getLogger(__name__)
Saying = Callable[[str], None]


def costs(
    plan: Plan, store: Store, *, workers: int = 1, threads: int = 1, anew: bool = False, machine: Machine | None = None,
    saying: Saying = lambda what: None,
) -> PlanCosts:  # fmt: skip
    """What every stage of the plan will hold and take.

    Predictions are kept by key, and so are the figures of this machine (`keep`): a plan whose stages are all known is read from
    there. Otherwise shapes are traced for a second or two, and the machine is probed the first time, or `anew`. `machine` is
    another one to plan for: nothing is measured, looked up or kept then. `saying` is told what takes its time.
    """
    elsewhere, made = machine is not None, frozenset(n.name for n in plan.nodes if store.has(n.key))
    known = {n.name: None if anew or elsewhere else keep.prediction(store.root, n.key) for n in plan.nodes}
    left = [n for n in plan.nodes if n.kind in PREDICTED_KINDS and n.name not in made and known[n.name] is None]
    unknown = ""
    if left:
        try:
            predictor = opened(plan, store, left[0], machine or probed(store, threads, saying, anew=anew), saying)
        except UserError as error:
            unknown = error.what
        else:
            machine = predictor.machine
            for node in left:
                known[node.name] = found = predicted(predictor, node)
                if not elsewhere:
                    keep.keep_prediction(store.root, node.key, found)
    stages = {n.name: known[n.name] or StageForecast(node=n.name) for n in plan.nodes}
    rows = tuple(replace(stages[n.name], node=n.name, spent=spent.read(store.root, n.key)) for n in plan.nodes)
    here = machine or keep.machine(store.root, threads)
    return PlanCosts(stages=rows, made=made, machine=here, workers=max(workers, 1), unknown=unknown)


def probed(store: Store, threads: int, saying: Saying, *, anew: bool) -> Machine:
    """This machine, from what was kept or from a look at it."""
    if not anew and (found := keep.machine(store.root, threads)) is not None:
        return found
    saying("a short look at this machine")
    found = probe(threads, store.root)
    keep.keep_machine(store.root, found)
    return found


def opened(plan: Plan, store: Store, node: Node, machine: Machine, saying: Saying) -> Predictor:
    """What predicts for this plan: layers as wide as its model's are timed where that is cheap."""
    config = config_of(plan.experiment)
    saying("a short run of two layers")
    return Predictor(plan, store, config, calibrated(config, precision(node.spec.setup), machine))  # type: ignore[attr-defined]


def predicted(predictor: Predictor, node: Node) -> StageForecast:
    """A stage, whether it fits by itself, and what would make it fit."""
    try:
        cost = predictor.of(node)
    except (UserError, NotImplementedError, RuntimeError, LookupError, AttributeError, TypeError) as error:
        _log.info("no prediction for %s: %s", node.name, error)  # a network that runs on no fake tensors, or has no such shape
        return StageForecast(node=node.name)
    machine, spec = predictor.machine, node.spec
    room = ROOM * machine.memory_bytes / (cost.processes if cost is not None and machine.kind == "cpu" else 1)
    if cost is None or cost.peak_bytes <= room:
        return StageForecast(node=node.name, predicted=cost)
    fix = fitting(spec, lambda s: predictor.fit(node, s).peak_bytes, room) if isinstance(spec, FitSpec) else None
    return StageForecast(node=node.name, predicted=cost, fits=False, fix=fix)


def beside(plan: Plan, store: Store) -> Mapping[str, StageForecast]:
    """Of every stage what is known without computing: predictions that were kept, and what was spent."""
    found = {n.name: keep.prediction(store.root, n.key) or StageForecast(node=n.name) for n in plan.nodes}
    return {n.name: replace(found[n.name], node=n.name, spent=spent.read(store.root, n.key)) for n in plan.nodes}
