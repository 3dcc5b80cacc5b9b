"""`evenhand watch`: a run's page while the run grows, for a browser here or at the end of a tunnel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evenhand.cli.options import Port
from evenhand.errors import UserError


def watch(
    run: Annotated[Path, typer.Argument(help="A run directory, under way or done.", exists=True, file_okay=False)],
    port: Port = 0,
) -> None:
    """Serve a run's page on this machine while it grows: stages, curves, samples, warnings, cost. It only reads."""
    from evenhand.serve.server import check_installed, serve

    check_installed()
    if not (run / "experiment.json").is_file():
        raise UserError("is no run directory", where=str(run), fix="give the folder that `evenhand run` writes to")
    from evenhand.report import live
    from evenhand.report.page import live_assets

    serve(live.build(run), live_assets()["policy"], port=port)


COMMANDS = (watch,)
