"""Weights & Biases: a group per experiment, a run per arm and seed. Offline unless asked: `wandb sync` uploads later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from evenhand.trackers.packages import package, run_id
from evenhand.trackers.protocol import TrackedRun, numbers, tracker


@tracker("wandb")
class WandbTracker:
    """`mode` "offline" writes below the run directory; "online" needs a login. The project is the experiment unless named."""

    def __init__(self, run: TrackedRun, project: str = "", mode: Literal["offline", "online"] = "offline") -> None:
        wandb = package("wandb")
        self.run = wandb.init(
            project=project or run.experiment, group=run.experiment, name=run.name, id=run_id(run), dir=str(run.out), mode=mode,
            resume="allow", reinit="create_new", config={"arm": run.arm, "seed": run.seed},
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True, disable_code=True),
        )  # fmt: skip

    def log(self, metrics: Mapping[str, Any]) -> None:
        self.run.log(numbers(metrics), step=metrics["step"])

    def close(self) -> None:
        self.run.finish()
