"""Runs a plan on a Ray cluster: the same scheduler and the same stages, which are tasks of the cluster.

The store remains the truth: what a task has made is there under its key, and a lost task goes on from its checkpoint. So store
and run directory lie on a disk that every machine of the cluster sees.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.errors import UserError
from evenhand.runner import timings
from evenhand.runner.installed import seen, versions
from evenhand.runner.job import Job, world_size
from evenhand.runner.listener import Listener, ToListener
from evenhand.runner.local import STAGES, default_workers
from evenhand.runner.process import THREADS, Setting
from evenhand.runner.progress import Quiet, View
from evenhand.runner.protocol import Growth, Outcome
from evenhand.runner.scheduler import Scheduler
from evenhand.runner.worker import last_word
from evenhand.runner.worker_protocol import Died, Message, Sender
from evenhand.spec.experiment import Resources
from evenhand.stages.setup import Setup
from evenhand.store.store import Store

if TYPE_CHECKING:
    from evenhand.plan.graph import Node
    from evenhand.plan.plan import Plan

AGAIN = 2
"""How often a task is begun again whose process, or machine, was lost; what a stage raises is final."""
OBJECTS = 100 << 20
"""Bytes of Ray's own store of objects on a cluster that is begun here: artifacts do not go through it."""
_PATIENCE = 5.0
"""Seconds that tasks have to end when the run is stopped."""
_SEEN = 300.0
"""Seconds in which every machine has to say what it sees."""


@dataclass(frozen=True, slots=True)
class RayRunner:
    """A runner on the cluster at `address`, None: one of this machine that lives as long as the run.

    `resources` by kind of stage or by arm. `stages` is the module with `STAGES`.
    """

    address: str | None = None
    resources: Mapping[str, Resources] = field(default_factory=dict)
    stages: str = STAGES

    def __call__(
        self,
        plan: Plan,
        store: Store,
        out: Path,
        *,
        workers: int | None = None,
        threads: int = 1,
        view: View | None = None,
        more: Growth | None = None,
    ) -> Outcome:
        """Brings every node of `plan` into `store`, as `runner.local.run` does.

        Raises: UserError where Ray is not installed, where a stage asks for more than any machine of the cluster has, where a
        machine has other versions or does not see the store; KeyboardInterrupt when stopped, after its tasks have ended.
        """
        if workers == 0:
            fix = "use `runtime: {runner: local}` for stages in this process"
            raise UserError("a Ray cluster without workers", where="runtime.workers", fix=fix)
        out = Path(out).resolve()
        setting = Setting(store=store.root.resolve(), stages=self.stages, threads=threads, plugins=plan.plugins)
        with _cluster(self.address, workers, threads) as (ray, own):
            if not own:
                _check_machines(ray, setting)
            crew = RayCrew(ray, workers, setting, self.resources)
            for node in plan.nodes:
                crew.check(node)
            board = timings.board(plan.nodes, store.root, out, workers or crew.slots())
            Scheduler(board, store, out, setting, view or Quiet(), crew=crew, more=more).run()
        timings.remember(board, out)
        return Outcome.of(board)


@contextmanager
def _cluster(address: str | None, workers: int | None, threads: int) -> Iterator[tuple[Any, bool]]:
    """Ray, connected, and whether its cluster was begun here: that one ends with the run; a connection that was there stays."""
    if importlib.util.find_spec("ray") is None:
        fix = "pip install 'evenhand[ray]', or use `runtime: {runner: local}`"
        raise UserError("the package ray is not installed", where="runtime.runner", fix=fix)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster that is begun here: on a busy machine 15, Ray's own, starves
    ray = importlib.import_module("ray")
    if ray.is_initialized():
        yield ray, False
        return
    own: dict[str, Any] = {
        "address": "local",  # never one that happens to be there
        "num_cpus": (workers or default_workers(threads)) * threads, "object_store_memory": OBJECTS, "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
    }  # fmt: skip
    try:
        # tasks import what a local worker could: plugins, a checkout that is on the path and not installed
        importable = ray.job_config.JobConfig(_py_driver_sys_path=[path for path in sys.path if path])
        ray.init(**({"address": address} if address is not None else own), log_to_driver=False, job_config=importable)
    except (ConnectionError, ValueError, RuntimeError) as error:
        why = str(error).partition("\n")[0]
        fix = "begin one with `ray start --head`, or leave `address` out for one of this machine"
        raise UserError("no Ray cluster answers", where="runtime.address", why=why, fix=fix) from error
    try:
        yield ray, address is None
    finally:
        ray.shutdown()


@dataclass(frozen=True, slots=True)
class _Machine:
    """A machine of the cluster, and what it has."""

    id: str
    address: str
    has: Mapping[str, float]


def _machines(ray: Any) -> list[_Machine]:
    return [_Machine(n["NodeID"], n["NodeManagerAddress"], n["Resources"]) for n in ray.nodes() if n["Alive"]]


def _check_machines(ray: Any, setting: Setting) -> None:
    """Every machine sees the store and has the same versions; an artifact says that it was made by those of the driver."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    setting.store.mkdir(parents=True, exist_ok=True)
    look = ray.remote(num_cpus=0, max_retries=0)(seen)
    with tempfile.NamedTemporaryFile(dir=setting.store, prefix="seen-") as token:
        machines = _machines(ray)
        places = [NodeAffinitySchedulingStrategy(m.id, soft=False) for m in machines]
        asked = [look.options(scheduling_strategy=place).remote(token.name) for place in places]
        for machine, answer in zip(machines, asked, strict=True):
            where = f"machine {machine.address}"
            try:
                sees, there = ray.get(answer, timeout=_SEEN)
            except Exception as error:
                why = str(error).strip().rpartition("\n")[2]
                fix = "install the same evenhand on every machine of the cluster"
                raise UserError("a machine of the cluster cannot run stages", where=where, why=why, fix=fix) from error
            if not sees:
                fix = "use a folder of a shared disk: `runtime: {store: ...}` and --out"
                raise UserError(f"{setting.store} is not there", where=where, why="artifacts travel by the store", fix=fix)
            if apart := [f"{n} {there.get(n)} there, {own} here" for n, own in versions().items() if there.get(n) != own]:
                fix = "install the same versions on every machine of the cluster"
                raise UserError("other versions", where=where, why="; ".join(apart), fix=fix)


def stage_task(job: Job, setting: Setting, listener: Any) -> Message:
    """The main function of a task: a process that runs one stage and ends."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.update(dict.fromkeys(THREADS, str(setting.threads)))
    return last_word(job, setting, Sender(ToListener(listener, job.name)))


class RayCrew:
    """Tasks of a cluster. A task whose process is lost is begun again by Ray, and goes on from the stage's checkpoint."""

    def __init__(self, ray: Any, workers: int | None, setting: Setting, resources: Mapping[str, Resources]) -> None:
        self.ray, self.workers, self.setting, self.resources = ray, workers, setting, resources
        self.task = ray.remote(max_retries=AGAIN, max_calls=1)(stage_task)
        self.running: dict[Any, str] = {}
        self.checked: set[str] = set()
        self.listener: Any = None

    def begin(self, kinds: Sequence[str]) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self.ray.get_runtime_context().get_node_id(), soft=False)
        self.listener = self.ray.remote(num_cpus=0)(Listener).options(scheduling_strategy=here).remote()

    def slots(self) -> int:
        """Stages of one process that the cluster has room for."""
        return max(1, int(self.ray.cluster_resources().get("CPU", 1)) // self.setting.threads)

    def room(self, node: Node) -> bool:
        self.check(node)
        return self.workers is None or len(self.running) < self.workers

    def check(self, node: Node) -> None:
        """Raises: UserError where no machine has what the stage asks for: Ray would wait for one in silence.

        Asked once of a stage, so that a run outlives a machine that is lost and comes back.
        """
        if node.name in self.checked:
            return
        self.checked.add(node.name)
        asked, machines = self.asked(node.name, node.kind, node.spec), _machines(self.ray)
        if any(all(m.has.get(name, 0.0) >= count for name, count in asked.items()) for m in machines):
            return
        most = {name: max((m.has.get(name, 0.0) for m in machines), default=0.0) for name in asked}
        why = "the most that any of them has: " + ", ".join(f"{_amount(n, have)}" for n, have in most.items())
        what = ", ".join(_amount(name, count) for name, count in asked.items())
        fix = "ask for less in `runtime.resources`, use fewer `runtime.ranks`, or add a machine to the cluster"
        raise UserError(f"no machine of the cluster has {what}", where=node.name, why=why, fix=fix)

    def asked(self, name: str, kind: str, spec: Any) -> dict[str, float]:
        """What a stage asks for, in Ray's words."""
        arm = name.split("/")[1] if name.startswith("arms/") else ""
        own = self.resources.get(arm) or self.resources.get(kind) or Resources()
        size, setup = world_size(spec), getattr(spec, "setup", None)
        on_gpu = isinstance(setup, Setup) and setup.compute.device.startswith("cuda")
        found = {
            "CPU": size * self.setting.threads if own.cpus is None else own.cpus,
            "GPU": float(size if on_gpu else 0) if own.gpus is None else own.gpus,
            "memory": 0.0 if own.memory is None else own.memory * 2**30,
        }
        return {name: float(count) for name, count in found.items() if count}

    def launch(self, job: Job, log: Path) -> None:
        asked = self.asked(job.name, job.kind, job.spec)
        placed = self.task.options(
            name=job.name, num_cpus=asked.get("CPU", 0), num_gpus=asked.get("GPU", 0), memory=asked.get("memory")
        )
        self.running[placed.remote(job, replace(self.setting, log=log), self.listener)] = job.name

    def heard(self, seconds: float) -> Iterator[tuple[str, Message]]:
        ended, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=seconds)
        names = set(self.running.values())
        yield from (said for said in self.ray.get(self.listener.drain.remote()) if said[0] in names)
        for task in ended:
            name = self.running.pop(task)
            yield name, self._last(task)

    def _last(self, task: Any) -> Message:
        try:
            return self.ray.get(task)
        except self.ray.exceptions.RayTaskError as error:  # raised before the stage began, or after it had ended
            return Died(f"the task could not be run: {str(error).strip().rpartition(chr(10))[2]}")
        except self.ray.exceptions.RayError as error:
            first = str(error).strip().partition("\n")[0]
            return Died(f"the task was lost {AGAIN + 1} times ({type(error).__name__}: {first})")

    def end(self) -> None:
        for task in self.running:
            self.ray.cancel(task, force=True)
        if self.running:
            self.ray.wait(list(self.running), num_returns=len(self.running), timeout=_PATIENCE)
        self.running.clear()


def _amount(name: str, count: float) -> str:
    """A resource in words.

    >>> _amount("CPU", 2.0), _amount("memory", 3.0 * 2**30)
    ('2 CPU', '3 GiB of memory')
    """
    return f"{count / 2**30:g} GiB of memory" if name == "memory" else f"{count:g} {name}"
