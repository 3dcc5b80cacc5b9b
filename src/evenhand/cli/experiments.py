"""`evenhand run`, `evenhand report` and `evenhand compare`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evenhand.cli import options, remembered_plan
from evenhand.cli.doctor import before_run, look
from evenhand.cli.files import where_begun
from evenhand.cli.remembered_plan import PlanText
from evenhand.cli.terminal import FAILED, WAITING, WRONG_INPUT, Waiting, stoppable, wide_console
from evenhand.display import in_bytes
from evenhand.report.formatting import amount, duration
from evenhand.runner.progress import choose_view

if TYPE_CHECKING:
    from evenhand.plan.costs.forecast import PlanCosts, StageForecast
    from evenhand.results.record import Results
    from evenhand.run_experiment import Run
    from evenhand.runner.protocol import Outcome, Runner

CACHED = "cached"


def run(
    experiment: options.Experiment,
    overrides: options.Overrides = None,
    out: options.RunDirectory = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show stages, cost and what is in the way; run nothing.")] = False,
    probe: Annotated[bool, typer.Option("--probe", help="With --plan: measure this machine and predict anew.")] = False,
    workers: options.Workers = None,
    quiet: options.Quiet = False,
    unchecked: options.Unchecked = False,
) -> None:
    """Train every arm from the same start, judge them, and report what differs. Run it again to go on after a stop."""
    experiment, out = where_begun(experiment, out)
    if plan:
        _plan(experiment, overrides or [], out, probe=probe, workers=workers, unchecked=unchecked)
        return
    from evenhand.run_experiment import prepare
    from evenhand.runner import torchrun
    from evenhand.runner.torchrun import Launch

    prepared = prepare(experiment, overrides or [], out)
    console = Console()
    launch = Launch.here()
    if launch is not None:
        launch.check(prepared.loaded.value.runtime.ranks)
        if launch.rank > 0:
            torchrun.follow(prepared.plan)
            return
    if not unchecked and prepared.unfinished():
        before_run(prepared, Console(stderr=True))
    outcome, results = _execute(prepared, workers, quiet, None if launch is None else torchrun.lead)
    if results is not None:
        _show_report(results, prepared.out, console, anew=False, quiet=quiet)
    if not outcome.ok:
        _say_failures(outcome, prepared.out)
        raise typer.Exit(FAILED if "failed" in outcome.status.values() else WAITING)


def _plan(experiment: str, overrides: list[str], out: Path | None, *, probe: bool, workers: int | None, unchecked: bool) -> None:
    """Shows what would be run, and what is in the way; as before where all of it is there and nothing has changed."""
    asked = remembered_plan.question(experiment, [*overrides, "--unchecked"] if unchecked else overrides, out)
    if not probe and (known := remembered_plan.recall(asked)) is not None:
        _show_plan(known)
        return
    with remembered_plan.watching() as opened:
        from evenhand.plan import parameter_count
        from evenhand.run_experiment import prepare

        prepared = prepare(experiment, overrides, out)
        costs = costs_of(prepared, workers=workers, anew=probe)
        lines = (*parameter_count.lines(prepared.loaded.value), *cost_lines(costs))
        text = plan_text(prepared, costs, lines)
        _show_plan(text)
        errors = Console(stderr=True, record=True)
        starts = unchecked or look(prepared, errors)
    if costs.too_large or not starts:
        raise typer.Exit(WRONG_INPUT)
    if not errors.export_text().strip():
        remembered_plan.remember(asked, prepared, text, opened)


def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")]) -> None:
    """Write the report of a run directory again and print its table; of a tuning, its page."""
    from evenhand.results.files import NAME, load

    if (folder / "tune.json").is_file() and not (folder / NAME).is_file():
        from evenhand.report import tuning

        Console().print(f"Trials: {tuning.write(folder)}", soft_wrap=True, highlight=False)
        return
    if not (folder / NAME).is_file() and (folder / "experiment.json").is_file():
        import evenhand.report

        Console().print(f"The run is not done. As far as it is: {evenhand.report.write(folder)}", soft_wrap=True, highlight=False)
        return
    _show_report(load(folder), folder, Console())


def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN RUN [...]", help="Run directories; the first is compared with.")],
    out: Annotated[Path | None, typer.Option(help="The page (default: comparison.html, here).")] = None,
) -> None:
    """Compare runs: what differs in their experiments, their verdicts, curves, cost and answers side by side, on one page."""
    from evenhand.report.side_by_side.page import PAGE, write_comparison
    from evenhand.report.side_by_side.terminal import RunsTable
    from evenhand.results.side_by_side.compared import compare_runs

    page = Path(PAGE) if out is None else out
    found = compare_runs(folders)
    wide_console().print(RunsTable(found))
    Console().print(f"Comparison: {write_comparison(found, page)}", soft_wrap=True, highlight=False)


def plan_text(prepared: Run, costs: PlanCosts, lines: tuple[str, ...] = ()) -> PlanText:
    """The stages of a run: what is cached and what that took, what will be computed, at what cost; and `lines` below them."""
    nodes, store = prepared.plan.nodes, prepared.store
    cached, rows = sum(store.has(n.key) for n in nodes), []
    for node in nodes:
        begun = store.partial(node.key).is_dir()
        state = CACHED if store.has(node.key) else "to resume" if begun else "to run"
        rows.append((node.name, node.kind, state, *cells(costs[node.name], state == CACHED), node.cost, node.key[:8]))
    return PlanText(f"{len(nodes)} nodes, {cached} cached, {len(nodes) - cached} to run", tuple(rows), lines)


def plan_table(plan: PlanText) -> Table:
    """The stages as a table for a terminal."""
    table = Table(title=plan.title, title_justify="left", box=None)
    table.add_column("node", no_wrap=True, min_width=max((len(row[0]) for row in plan.rows), default=0))
    for column in ("kind", "state", "memory", "time", "cost", "key"):
        table.add_column(column, no_wrap=column not in ("kind", "cost"))  # where the line is too short, the others are cut
    for row in plan.rows:
        style = "dim" if row[2] == CACHED else ""
        table.add_row(*(Text(t, style, no_wrap=True, overflow="ellipsis") for t in row))
    return table


def _show_plan(plan: PlanText) -> None:
    wide = wide_console()
    wide.print(plan_table(plan))
    for line in plan.lines:
        wide.print(line, highlight=False, markup=False, soft_wrap=True)


def _execute(prepared: Run, workers: int | None, quiet: bool, runner: Runner | None = None) -> tuple[Outcome, Results | None]:
    from evenhand.run_experiment import execute

    errors = Console(stderr=True)
    comparing = None if quiet else Waiting("comparing the arms", errors.file)
    with stoppable(errors):
        return execute(prepared, workers=workers, view=choose_view(errors, quiet=quiet), runner=runner, comparing=comparing)


def _show_report(results: Results, folder: Path, console: Console, *, anew: bool = True, quiet: bool = False) -> None:
    """The verdicts and where the page is, which is written first unless it is there and not `anew`."""
    import evenhand.report

    with nullcontext() if quiet else Waiting("drawing the page"):
        page = evenhand.report.write(folder) if anew else evenhand.report.renew(folder)
    console.print(evenhand.report.table(results))
    console.print(f"Report: {page}", soft_wrap=True, highlight=False)


def _say_failures(outcome: Outcome, out: Path) -> None:
    errors = Console(stderr=True)
    failed, waiting = ([n for n, s in outcome.status.items() if s == word] for word in ("failed", "waiting"))
    blocked = sum(s == "blocked" for s in outcome.status.values())
    if waiting:
        first = f"{len(waiting)} wait for people, the first: {waiting[0]}: {outcome.errors[waiting[0]]}"
        errors.print(Text(first, style="bold magenta"), soft_wrap=True)
        errors.print(Text(f"  label: evenhand label {out}\n  then give the same command again"), soft_wrap=True)
    if not failed:
        return
    errors.print(Text(f"{len(failed)} failed, {blocked} blocked:", style="bold red"))
    for name in failed:
        errors.print(Text(f"  {name}: {outcome.errors[name]}\n    log: {out / 'logs' / name}.log"), soft_wrap=True)


def costs_of(prepared: Run, *, workers: int | None = None, anew: bool = False) -> PlanCosts:
    """The costs of a prepared run, with a line on the screen while they are worked out."""
    from evenhand.plan.costs.predict import costs

    many = prepared.at_a_time(workers)
    with Waiting("costs", sys.stderr) as waiting:
        return costs(prepared.plan, prepared.store, workers=many, threads=prepared.threads, anew=anew, saying=waiting.now)


def cells(found: StageForecast, made: bool) -> tuple[str, str]:
    """Memory and time of a stage: what was spent where it is made, else what is predicted; nothing where neither is known."""
    if made:
        spent = found.spent
        if spent is None:
            return "", ""
        return "" if spent.peak_bytes is None else in_bytes(spent.peak_bytes), duration(spent.seconds)
    cost = found.predicted
    if cost is None:
        return "", ""
    return f"~{in_bytes(cost.peak_bytes)}" + (f" x {cost.processes}" if cost.processes > 1 else ""), f"~{duration(cost.seconds)}"


def cost_lines(costs: PlanCosts) -> Iterator[str]:
    """All together, for whom it was predicted, and what does not fit."""
    if costs.unknown:
        yield f"costs are not known: {costs.unknown}"
    if costs.to_run and (machine := costs.machine) is not None:
        largest = max(c.peak_bytes for c in costs.to_run)
        unit = "GPU-hours" if machine.kind == "cuda" else "processor-hours"
        yield (
            f"To run, about: {duration(costs.seconds)} with {costs.workers} at a time "
            f"({costs.device_seconds * max(machine.threads, 1) / 3600:.2g} {unit}), {amount(costs.tokens)} tokens, "
            f"{in_bytes(costs.disk_bytes)} of disk; at most {in_bytes(largest)} of {in_bytes(machine.memory_bytes)} memory. "
            f"For {machine.name}, {machine.threads} thread{'s' if machine.threads > 1 else ''}; --probe measures it anew."
        )
        if any(not c.known for c in costs.to_run):
            yield "Sampled answers, and rows that could not be looked at, are taken as long as `lengths` allows."
    for stage in costs.too_large:
        assert stage.predicted is not None
        fix = f"it fits with {stage.fix}" if stage.fix else "no smaller setting that was tried fits: take a smaller model"
        yield f"{stage.node} does not fit: {in_bytes(stage.predicted.peak_bytes)}; {fix}"
    if not costs.too_large and costs.machine is not None and costs.together > costs.machine.memory_bytes:
        yield (
            f"{costs.workers} stages at a time may hold {in_bytes(costs.together)}, "
            f"there are {in_bytes(costs.machine.memory_bytes)}: use fewer --workers"
        )
