"""MLflow: an experiment per experiment, a run per arm and seed. In files below the run directory unless a server is named."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from evenhand.trackers.packages import package, run_id
from evenhand.trackers.protocol import TrackedRun, numbers, tracker


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
