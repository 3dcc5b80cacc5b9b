"""The tools that come with evenhand: a file of lines, TensorBoard, Weights & Biases, trackio and MLflow."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from evenhand.errors import UserError
from evenhand.trackers.protocol import TrackedRun, numbers, tracker


@tracker("lines")
class LineTracker:
    """Lines `{"arm", "seed", "step", ...}` in the file `path` of the run directory."""

    def __init__(self, run: TrackedRun, path: str = "metrics.jsonl") -> None:
        self.run, self.path = run, run.out / path
        if not run.resumed and self.path.is_file():  # told once more, kept once
            kept = [line for line in self.path.read_text(encoding="utf-8").splitlines() if not self._own(json.loads(line))]
            self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def _own(self, row: Mapping[str, Any]) -> bool:
        return (row["arm"], row["seed"]) == (self.run.arm, self.run.seed)

    def log(self, metrics: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"arm": self.run.arm, "seed": self.run.seed, **metrics}) + "\n")

    def close(self) -> None: ...


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


class _OfRun:
    """What tells a tool through a run of its own that knows steps."""

    run: Any

    def log(self, metrics: Mapping[str, Any]) -> None:
        self.run.log(numbers(metrics), step=metrics["step"])

    def close(self) -> None:
        self.run.finish()


@tracker("wandb")
class WandbTracker(_OfRun):
    """`mode` "offline" writes below the run directory; "online" needs a login. The project is the experiment unless named."""

    def __init__(self, run: TrackedRun, project: str = "", mode: Literal["offline", "online"] = "offline") -> None:
        wandb = package("wandb")
        self.run = wandb.init(
            project=project or run.experiment, group=run.experiment, name=run.name, id=run_id(run), dir=str(run.out), mode=mode,
            resume="allow", reinit="create_new", config={"arm": run.arm, "seed": run.seed},
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True, disable_code=True),
        )  # fmt: skip


@tracker("trackio")
class TrackioTracker(_OfRun):
    """The project is the experiment unless named. Nothing leaves this machine: no Space is named."""

    def __init__(self, run: TrackedRun, project: str = "") -> None:
        trackio = package("trackio")
        self.run = trackio.init(
            project=project or run.experiment, group=run.experiment, name=run.name, config={"arm": run.arm, "seed": run.seed},
            resume="allow" if run.resumed else "never", embed=False, auto_log_gpu=False,
        )  # fmt: skip


@tracker("mlflow")
class MlflowTracker:
    """`uri` is a tracking server's; "" a SQLite file in the run directory."""

    def __init__(self, run: TrackedRun, uri: str = "") -> None:
        mlflow = package("mlflow")
        self.client = mlflow.MlflowClient(tracking_uri=uri or f"sqlite:///{run.out / 'mlflow.db'}")
        known = self.client.get_experiment_by_name(run.experiment)
        group = known.experiment_id if known is not None else self.client.create_experiment(run.experiment)
        told = self.client.search_runs([group], filter_string=f"tags.evenhand = '{run_id(run)}'")
        if told and not run.resumed:
            self.client.delete_run(told[0].info.run_id)
        tags = {"evenhand": run_id(run), "arm": run.arm, "seed": str(run.seed)}
        made = told[0] if told and run.resumed else self.client.create_run(group, run_name=run.name, tags=tags)
        self.id = made.info.run_id

    def log(self, metrics: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(name, value, now, metrics["step"]) for name, value in numbers(metrics).items()]
        self.client.log_batch(self.id, metrics=values)

    def close(self) -> None:
        self.client.set_terminated(self.id)


TOOLS = ("tensorboard", "wandb", "trackio", "mlflow")
"""Trackers that stand for a package of the same name."""


def missing_package(settings: Mapping[str, Any] | str | None) -> Iterator[UserError]:
    """The fault of a tracker whose package is not installed."""
    kind = settings.get("kind") if isinstance(settings, Mapping) else settings
    if kind in TOOLS and importlib.util.find_spec(kind) is None:
        fix = "pip install 'evenhand[track]', or use `tracker: lines`"
        yield UserError(f"the tracker '{kind}' needs the package {kind}, which is not installed", where="tracker", fix=fix)


def package(name: str) -> Any:
    """The tool's package. Raises: UserError where it is not installed."""
    for fault in missing_package(name):
        raise fault
    return importlib.import_module(name)


def run_id(run: TrackedRun) -> str:
    """The same for an arm and seed of a run directory whenever it is told, so that a tool goes on with the run it knows."""
    return hashlib.sha256(f"{run.out.resolve()}/{run.name}".encode()).hexdigest()[:16]
