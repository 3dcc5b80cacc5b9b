"""TensorBoard: `tensorboard --logdir RUN/tensorboard` shows one run per arm and seed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from evenhand.trackers.packages import package
from evenhand.trackers.protocol import TrackedRun, numbers, tracker


@tracker("tensorboard")
class TensorBoardTracker:
    """Event files under the folder `path` of the run directory."""

    def __init__(self, run: TrackedRun, path: str = "tensorboard") -> None:
        package("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        folder = run.out / path / run.name
        if not run.resumed:
            shutil.rmtree(folder, ignore_errors=True)
        self.writer = SummaryWriter(str(folder))

    def log(self, metrics: Mapping[str, Any]) -> None:
        for name, value in numbers(metrics).items():
            self.writer.add_scalar(name, value, metrics["step"])

    def close(self) -> None:
        self.writer.close()
