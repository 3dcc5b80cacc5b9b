"""trackio: a local dashboard (`trackio show --project NAME`), a group per experiment, a run per arm and seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenhand.trackers.packages import package
from evenhand.trackers.protocol import TrackedRun, numbers, tracker


@tracker("trackio")
class TrackioTracker:
    """The project is the experiment unless named. Nothing leaves this machine: no Space is named."""

    def __init__(self, run: TrackedRun, project: str = "") -> None:
        trackio = package("trackio")
        self.run = trackio.init(
            project=project or run.experiment, group=run.experiment, name=run.name, config={"arm": run.arm, "seed": run.seed},
            resume="allow" if run.resumed else "never", embed=False, auto_log_gpu=False,
        )  # fmt: skip

    def log(self, metrics: Mapping[str, Any]) -> None:
        self.run.log(numbers(metrics), step=metrics["step"])

    def close(self) -> None:
        self.run.finish()
