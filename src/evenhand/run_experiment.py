"""From an experiment's name or file to a finished run directory; the command line and Python users share this path."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.configfile.begun import PLACE, begun_in
from evenhand.configfile.schema import Loaded, located
from evenhand.configfile.validation_errors import Faults
from evenhand.errors import UserError, did_you_mean
from evenhand.plan.graph import Node
from evenhand.plan.plan import Plan, build
from evenhand.results import unchanged
from evenhand.results.assemble import assemble
from evenhand.results.files import NAME, write_record
from evenhand.results.files import load as load_results
from evenhand.results.record import Results, Waived
from evenhand.runner.installed import versions
from evenhand.runner.local import cuda_devices, default_workers, run
from evenhand.runner.progress import Quiet, View
from evenhand.runner.protocol import Outcome, Runner
from evenhand.runner.ray_cluster import RayRunner
from evenhand.runner.recording import Recording
from evenhand.runner.tracking import tracked
from evenhand.spec.experiment import Experiment
from evenhand.spec.lengths import clamped
from evenhand.spec.read import read_experiment, with_user_code
from evenhand.store.fingerprint import digest
from evenhand.store.locks import locked
from evenhand.store.pointer import model_path
from evenhand.store.store import Store
from evenhand.store.whole import link

BUILTIN = Path(__file__).parent / "builtin"
RUNS = Path("runs")
"""Where a run directory is made that nobody names."""
SHOWN = ("arms/", "reward_models/", "generations/")
"""Nodes whose artifacts the run directory shows under their names."""


@dataclass(frozen=True, slots=True)
class Run:
    """An experiment that is checked and planned, and where it will go."""

    loaded: Loaded[Experiment]
    plan: Plan
    store: Store
    out: Path
    workers: int | None
    threads: int

    def at_a_time(self, workers: int | None = None) -> int:
        """Stages at a time: as asked for, or as the experiment says, or what this machine has room for."""
        return next((n for n in (workers, self.workers) if n is not None), default_workers(self.threads))

    def unfinished(self) -> bool:
        """Whether some stage is still to be made."""
        return not self.store.has_all(node.key for node in self.plan.nodes)


def builtins() -> list[str]:
    """Names of the experiments that come with evenhand."""
    return sorted(p.stem for p in BUILTIN.glob("*.yaml"))


def locate(experiment: str) -> Path:
    """The file of an experiment: a built-in name, a YAML path, or a run directory (its recorded experiment)."""
    path = Path(experiment)
    if path.is_dir() and (path / "experiment.json").is_file():
        return path / "experiment.json"
    if path.is_file():
        return path
    if experiment in builtins():
        return BUILTIN / f"{experiment}.yaml"
    if path.is_dir():
        fix = "name a YAML file, or a folder that `evenhand run` has made"
        raise UserError("this folder is no run: it has no experiment.json", where=experiment, fix=fix)
    looks_like_path = path.suffix in (".yaml", ".yml", ".json") or len(path.parts) > 1
    if looks_like_path:
        raise UserError("there is no such file", where=experiment, fix=f"check the path; built in are {', '.join(builtins())}")
    fix = f"{did_you_mean(experiment, builtins())}; or give the path of a YAML file"
    raise UserError(f"'{experiment}' is no built-in experiment and no file", fix=fix)


def find(name: str, folder: Path) -> Path:
    """Where an extended name lies: beside the extending file, or among the built-in experiments."""
    beside = folder / name
    return BUILTIN / f"{name}.yaml" if not beside.is_file() and name in builtins() else beside


def prepare(experiment: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), out: Path | None = None) -> Run:
    """Reads, checks and plans; nothing is written. `experiment` is what `locate` finds, or the content of an experiment file.

    The store is `runtime.store` of the experiment, else the environment's EVENHAND_STORE, else `out/store`.
    """
    source, place = _source(experiment)
    loaded = clamped(read_experiment(source, overrides, find=find, before=with_user_code))
    try:
        plan = build(loaded.value)
    except UserError as error:
        raise Faults.of(located(error, loaded.document, loaded.effective)) from None
    out = Path(out) if out is not None else place or RUNS / loaded.value.name
    runtime = loaded.value.runtime
    store = runtime.store or os.environ.get("EVENHAND_STORE") or out / "store"
    return Run(loaded, plan, Store(store), out, runtime.workers, runtime.threads)


def _source(experiment: str | Path | Mapping[str, Any]) -> tuple[str | Path | Mapping[str, Any], Path | None]:
    """What `read_experiment` reads, and its run directory, of a run its own; None where the name is yet to be read."""
    if isinstance(experiment, Mapping):
        return experiment, RUNS / str(experiment.get("name", "experiment"))
    if isinstance(experiment, str) and "\n" in experiment:
        return experiment, None
    path = locate(str(experiment))
    if (begun := begun_in(str(experiment))) is not None:
        raise UserError(
            "the paths of this run are meant from another folder", where=str(experiment),
            why=f"it was begun in {begun}; here they name other files, or none", fix=f"give the command there: cd {begun}",
        )  # fmt: skip
    place = path.parent if path.parent == Path(experiment) else RUNS / name_of(path)
    return _recorded(path) if path.suffix == ".json" else path, place


def execute(
    prepared: Run, *, workers: int | None = None, view: View | None = None, runner: Runner | None = None,
    comparing: AbstractContextManager[object] | None = None,
) -> tuple[Outcome, Results | None]:  # fmt: skip
    """Runs the plan and fills the run directory; returns how it went and `results.json` (None if nothing could be compared).

    `runner` None is the one that `runtime.runner` names; `comparing` is open while the finished arms are compared.
    """
    with working(prepared):
        return _execute(prepared, workers, view, runner or runner_of(prepared), comparing or nullcontext())


def _execute(
    prepared: Run, workers: int | None, view: View | None, runner: Runner, comparing: AbstractContextManager[object]
) -> tuple[Outcome, Results | None]:
    out, store, plan = prepared.out, prepared.store, prepared.plan
    write_record(out / "experiment.json", record(prepared))
    workers = prepared.workers if workers is None else workers
    outcome = runner(plan, store, out, workers=workers, threads=prepared.threads, view=watched(prepared, view))
    show(plan, store, out)
    untrusted = plan.judge_test in outcome.errors  # verdicts of an earlier run may be there; they are no better
    if untrusted or not any(outcome.status[name].good for name in _last(plan)):
        unchanged.set_aside(out)
        return outcome, None
    if not (outcome.all_cached and unchanged.is_current(out, (NAME,))):
        with comparing:
            write_record(out / NAME, assemble(plan, store, out, errors=outcome.errors, waived=waived(prepared)))
        unchanged.note_results(out)
    return outcome, load_results(out)


def runner_of(prepared: Run) -> Runner:
    """What carries the stages out: processes of this machine, or a Ray cluster."""
    runtime = prepared.loaded.value.runtime
    if runtime.runner == "local":
        return run
    return RayRunner(runtime.address, runtime.resources)


def watched(prepared: Run, view: View | None) -> View:
    """The view, which also leaves a record to watch from elsewhere, and tells the experiment's tracker what arms record."""
    experiment = prepared.loaded.value
    seen = Recording(view or Quiet(), prepared.out)
    if experiment.tracker is None:
        return seen
    return tracked(seen, experiment.tracker, experiment.name, prepared.plan, prepared.store, prepared.out)


def plugged(plan: Plan) -> dict[str, Any]:
    """The user's code that the plan may run, as results and page name it; nothing where there is none."""
    rows = [{"name": p.name, "source": str(p.source), "digest": p.digest} for p in plan.plugins]
    return {"plugins": rows} if rows else {}


def waived(prepared: Run) -> tuple[Waived, ...]:
    """The doctor's checks that the experiment lets pass, with their reasons."""
    return tuple(Waived(check=id, reason=reason) for id, reason in sorted(prepared.loaded.value.doctor.waive.items()))


@contextmanager
def working(prepared: Run) -> Iterator[None]:
    """Inside, run directory and store are there, and no other run works in that directory."""

    def refuse() -> None:
        fix = "wait for it, or use another --out (with EVENHAND_STORE both share what they compute)"
        raise UserError("another run is working here", where=str(prepared.out), fix=fix)

    prepared.out.mkdir(parents=True, exist_ok=True)
    with locked(prepared.out / ".lock", refuse):
        prepared.store.root.mkdir(parents=True, exist_ok=True)
        yield


def record(prepared: Run) -> dict[str, Any]:
    """What `experiment.json` says: enough to run the same again and to see what every artifact was made from."""
    loaded = prepared.loaded
    return {
        "source": Path(loaded.source).name,
        "given": loaded.given,
        "effective": loaded.effective,
        "hashes": {"given": digest(loaded.given), "effective": digest(loaded.effective)},
        "versions": versions(),
        **plugged(prepared.plan),
        "threads": prepared.threads,
        "accelerators": cuda_devices(),
        "waived": waived(prepared),
        "store": os.path.relpath(prepared.store.root, prepared.out),
        PLACE: os.path.relpath(Path.cwd(), prepared.out.resolve()),
        "nodes": [_node_record(n) for n in prepared.plan.nodes],
    }


def show(plan: Plan, store: Store, out: Path) -> None:
    """Lets the run directory show finished artifacts under their names, by hard links (by copies on another disk)."""
    for prefix in SHOWN:
        shutil.rmtree(out / prefix, ignore_errors=True)  # of an earlier plan; these are links, the store has the files
    keys = {node.name: node.key for node in plan.nodes}
    for place, name in shown(plan).items():
        if store.has(keys[name]):
            shutil.copytree(store.path(keys[name]), out / place, copy_function=link, dirs_exist_ok=True)
    for place, name in untrained(plan).items():
        if store.has(keys[name]):
            _show_model(store.path(keys[name]), out / place)


def _show_model(artifact: Path, place: Path) -> None:
    """Only the model: how its stage was trained is not this arm's history. A model from elsewhere is pointed at, not copied."""
    place.mkdir(parents=True)
    model = model_path(artifact)
    if model.is_relative_to(artifact):
        shutil.copytree(model, place / model.name, copy_function=link)
    else:
        (place / "model").symlink_to(model)


def shown(plan: Plan) -> dict[str, str]:
    """Place in the run directory -> node. Equal stages are one node: each arm and seed has its place all the same."""
    places = {n.name: n.name for n in plan.nodes if n.name.startswith(SHOWN) and not n.name.startswith("arms/")}
    for kind, arms in (("arms", plan.arms), ("generations", plan.generations)):
        for arm, seeds in arms.items():
            if kind == "generations" or plan.trained(arm):
                places |= {f"{kind}/{arm}/seed-{seed}": node for seed, node in seeds.items()}
    return places


def untrained(plan: Plan) -> dict[str, str]:
    """Place in the run directory -> node, of arms that are another stage's model as it is."""
    arms = {arm: seeds for arm, seeds in plan.arms.items() if not plan.trained(arm)}
    return {f"arms/{arm}/seed-{seed}": node for arm, seeds in arms.items() for seed, node in seeds.items()}


def _recorded(path: Path) -> Mapping[str, Any]:
    """The effective configuration of a run directory's experiment.json, or a plain JSON experiment."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return data.get("effective", data)
    except (ValueError, AttributeError):
        fix = "give the experiment's own file; what is finished in the store is reused"
        raise UserError("this is no record of a run (any more)", where=str(path), fix=fix) from None


def name_of(path: Path) -> str:
    """What a run of an experiment's file, or of its record, is called."""
    return path.parent.name if path.name == "experiment.json" else path.stem


def _node_record(node: Node) -> dict[str, Any]:
    version = type(node.spec).VERSION
    return {
        "name": node.name, "kind": node.kind, "version": version, "seed": node.seed, "key": node.key, "inputs": dict(node.inputs),
    }  # fmt: skip


def _last(plan: Plan) -> list[str]:
    """The nodes nothing depends on: what the run is for."""
    used = {name for node in plan.nodes for name in node.inputs.values()}
    return [n.name for n in plan.nodes if n.name not in used]
