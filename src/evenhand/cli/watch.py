"""`evenhand watch` and `evenhand track`: a run for a browser while it grows, or told to a tracker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from evenhand.cli.options import Port
from evenhand.errors import UserError
from evenhand.serve.server import check_installed, serve


def watch(
    run: Annotated[Path, typer.Argument(help="A run directory, under way or done.", exists=True, file_okay=False)], port: Port = 0
) -> None:
    """Serve a run's page on this machine while it grows: stages, curves, samples, warnings, cost. It only reads."""
    check_installed()
    if not (run / "experiment.json").is_file():
        raise UserError("is no run directory", where=str(run), fix="give the folder that `evenhand run` writes to")
    from evenhand.report import live
    from evenhand.report.page import live_assets

    serve(live.build(run), live_assets()["policy"], port=port)


def track(
    run: Annotated[Path, typer.Argument(help="A run directory.", exists=True, file_okay=False)],
    tracker: Annotated[
        str | None, typer.Option(help="lines, tensorboard, wandb, trackio, mlflow or a plugin's (default: the experiment's).")
    ] = None,
) -> None:
    """Tell a tracker what a run has recorded, from the first step: a tool that was not there when it trained."""
    from evenhand import plugins
    from evenhand.runner.tracking import replay
    from evenhand.trackers import TRACKERS

    file = run / "experiment.json"
    if not file.is_file():
        raise UserError("is no run directory", where=str(run), fix="give the folder that `evenhand run` wrote")
    record = json.loads(file.read_text(encoding="utf-8"))
    effective = record["effective"]
    settings = tracker or effective.get("tracker")
    if settings is None:
        raise UserError("the experiment names no tracker", where=str(file), fix="add --tracker tensorboard")
    plugins.activate(plugins.resolve(effective.get("plugins") or [], run))
    TRACKERS.check(settings, where="tracker")
    keys = {node["name"]: node["key"] for node in record["nodes"]}
    names = replay(settings, effective["name"], run, keys)
    kind = settings if isinstance(settings, str) else settings["kind"]
    print(f"{kind} was told of {len(names)} runs: {', '.join(names)}" if names else "no arm has recorded anything yet")
