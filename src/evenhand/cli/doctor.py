"""`evenhand doctor`, and the quick look before every run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from evenhand.cli import options
from evenhand.cli.files import where_begun
from evenhand.cli.terminal import WRONG_INPUT, Waiting

if TYPE_CHECKING:
    from evenhand.run_experiment import Run


def doctor(
    experiment: options.Experiment,
    overrides: options.Overrides = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only what needs no model: what `run` looks at before it begins.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help="A check by id, such as D3; may be given several times.")] = None,
    list_checks: Annotated[bool, typer.Option("--list", help="The checks, and why each is made; nothing is looked at.")] = False,
    out: options.RunDirectory = None,
) -> None:
    """Look for what makes a run wrong while it looks healthy: data, template, model, reward, sampling, budget."""
    from evenhand.doctor import CHECKS, examine
    from evenhand.doctor.render import show
    from evenhand.errors import UserError, did_you_mean
    from evenhand.run_experiment import prepare

    console = Console()
    if list_checks:
        _list(console)
        return
    for id in only or ():
        if id not in CHECKS:
            raise UserError(f"there is no check '{id}'", where="--only", fix=did_you_mean(id, CHECKS))
    errors = Console(stderr=True)
    experiment, out = where_begun(experiment, out)
    with Waiting("looking", errors.file) as waiting:
        diagnosis = examine(prepare(experiment, overrides or [], out), quick=quick, only=only or (), progress=waiting.now)
    show(diagnosis, console)
    if not diagnosis.ok:
        raise typer.Exit(WRONG_INPUT)


def before_run(prepared: Run, console: Console) -> None:
    """The quick look: warnings are shown, failures that are not waived end the command with exit code 2."""
    if not look(prepared, console):
        raise typer.Exit(WRONG_INPUT)


def look(prepared: Run, console: Console) -> bool:
    """Warnings and failures of the quick look: bad data, short contexts, missing splits. Returns whether a run would start."""
    from evenhand.doctor import Severity, examine
    from evenhand.doctor.render import show

    with Waiting("a quick look at data and settings", console.file) as waiting:
        diagnosis = examine(prepared, quick=True, progress=waiting.now)
    if any(r.worst() in (Severity.FAIL, Severity.WARN) for r in diagnosis.results):
        show(diagnosis, console, least=Severity.WARN)
    if not diagnosis.ok:
        ids = ", ".join(f'{r.check.id}: "the reason"' for r in diagnosis.failed)
        console.print(
            f"It does not start like this. Mend it, or waive it in the experiment file: doctor: {{waive: {{{ids}}}}}",
            soft_wrap=True,
            markup=False,
        )
    return diagnosis.ok


def _list(console: Console) -> None:
    from evenhand.doctor import CHECKS
    from evenhand.doctor.examine import order

    table = Table(box=None)
    for column in ("id", "when", "it checks that", "because"):
        table.add_column(column)
    for _, check in sorted(CHECKS.items(), key=order):
        table.add_row(check.id, "quick" if check.quick else "full", check.title, check.why)
    console.print(table)
