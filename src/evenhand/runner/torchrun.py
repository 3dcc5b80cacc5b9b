"""A run whose ranks torchrun has started: `torchrun --nproc-per-node N -m evenhand.cli run EXPERIMENT runtime.ranks=N`.

The first rank goes through the plan, one stage after another, in its own process. Stages that train are run by all ranks, which
stand ready in between; all others by the first alone. torchrun may have started them on several machines that share a disk. Where
a stage of all ranks fails, this process ends, and torchrun ends the others: the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.plan.plan import Plan
from evenhand.plugins import activate
from evenhand.runner import local, peak, stage
from evenhand.runner.job import Job
from evenhand.runner.process import Setting
from evenhand.runner.progress import View
from evenhand.runner.protocol import Growth, Outcome
from evenhand.stages.context import StageContext
from evenhand.stages.setup import Compute
from evenhand.store.store import Store

FAILED = 3
"""How a rank ends where a stage of all of them failed."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Launch:
    """This process's place among those that torchrun has started."""

    rank: int
    size: int

    @classmethod
    def here(cls) -> Launch | None:
        """None where nobody has started several."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return None
        found = cls(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        return found if found.size > 1 else None

    def check(self, ranks: int) -> None:
        """Raises: UserError where the experiment asks for another number of ranks."""
        if ranks != self.size:
            raise UserError(
                f"torchrun has started {self.size} processes, the experiment asks for {ranks}", where="runtime.ranks",
                why="the number of ranks is part of what an artifact is known by", fix=f"add runtime.ranks={self.size}",
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SharedStage:
    """What the first rank tells the others to do with it."""

    job: Job
    stages: str
    inputs: Mapping[str, Path]


def join(compute: Compute) -> None:
    """This process meets the others at the address that torchrun has given all of them."""
    import torch.distributed as dist

    from evenhand.train.distributed import PATIENCE, backend

    if os.environ.get("MASTER_ADDR") in ("localhost", "127.0.0.1"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(backend(compute.device), timeout=PATIENCE)


def lead(
    plan: Plan, store: Store, out: Path, *, workers: int | None = None, threads: int = 1, view: View | None = None,
    more: Growth | None = None,
) -> Outcome:  # fmt: skip
    """The first rank's part: a runner, whose stages of several ranks are run by all. `workers` has no meaning here."""
    join(_compute(plan))
    try:
        return local.run(plan, store, out, workers=0, threads=threads, view=view, more=more, together=_together)
    finally:  # a stage of all ranks that fails does not come here: see `_run`
        _told(None)
        _leave()


def follow(plan: Plan) -> None:
    """Any other rank's part: it does what it is told until there is no more."""
    logging.getLogger("evenhand").setLevel(logging.ERROR)  # the first says the same
    activate(plan.plugins)
    join(_compute(plan))
    with tempfile.TemporaryDirectory(prefix="evenhand-rank-") as scratch:
        while (task := _told(None)) is not None:
            out = Path(tempfile.mkdtemp(dir=scratch))
            _run(task, StageContext(seed=task.job.seed, inputs=task.inputs, out=out))
    _leave()


def _compute(plan: Plan) -> Compute:
    """Of the stages that all ranks run. Raises: UserError where there is none."""
    for node in plan.nodes:
        setup: Any = getattr(node.spec, "setup", None)
        if setup is not None and setup.compute.world_size > 1:
            return setup.compute
    raise UserError("no stage of this run trains", where="runtime.ranks", fix="start it without torchrun")


def _together(job: Job, setting: Setting, context: StageContext) -> int | None:
    task = SharedStage(job, setting.stages, context.inputs)
    _told(task)
    return _run(task, context)


def _run(task: SharedStage, context: StageContext) -> int | None:
    """This rank's part of a stage. It ends the process where it fails: others may be waiting for it in the middle of a step."""
    from evenhand.train import distributed

    compute = task.job.spec.setup.compute
    peak.begin()
    try:
        ranks = distributed.of_group(compute.shard, compute.device)
        stage.run(task.job, task.stages, replace(context, ranks=ranks))
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        print(f"{task.job.name}: {error}", file=sys.stderr, flush=True)
        os._exit(FAILED)
    return peak.reached()


def _told(task: SharedStage | None) -> SharedStage | None:
    """What the first rank says, to all."""
    import torch.distributed as dist

    said = [task]
    dist.broadcast_object_list(said, src=0)
    return said[0]


def _leave() -> None:
    from evenhand.train import distributed

    distributed.left()
