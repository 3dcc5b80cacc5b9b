"""`evenhand tune`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evenhand.cli import options
from evenhand.cli.doctor import before_run
from evenhand.cli.files import where_begun
from evenhand.cli.terminal import FAILED, stoppable, wide_console
from evenhand.runner.progress import choose_view, duration

if TYPE_CHECKING:
    from evenhand.results.tuning_record import TunedArmRecord, TuningRecord
    from evenhand.runner.state import RunState
    from evenhand.tuning.launch import Tuning


def tune(
    experiment: options.Experiment,
    overrides: options.Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Where to write (default: runs/NAME-tune).")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show trials, cache hits and cost; run nothing.")] = False,
    workers: options.Workers = None,
    quiet: options.Quiet = False,
    unchecked: options.Unchecked = False,
) -> None:
    """Try settings for every arm, the same number for each, on seeds and prompts that the comparison never uses."""
    from evenhand.tuning.launch import prepare

    experiment, out = where_begun(experiment, out)
    tuning = prepare(experiment, overrides or [], out)
    console = Console()
    if plan:
        _show_plan(tuning, wide_console())
        return
    if not unchecked:
        before_run(tuning.prepared, Console(stderr=True))
    found = _execute(tuning, workers, quiet)
    _show(found, tuning.prepared.out, console)
    if any(arm.chosen is None for arm in found.arms.values()):
        raise typer.Exit(FAILED)


def _execute(tuning: Tuning, workers: int | None, quiet: bool) -> TuningRecord:
    from evenhand.tuning.launch import execute

    errors = Console(stderr=True)
    with stoppable(errors):
        return execute(tuning, workers=workers, view=choose_view(errors, quiet=quiet))[1]


def _show_plan(tuning: Tuning, console: Console) -> None:
    from evenhand.runner.timings import usual
    from evenhand.stats import win_rate
    from evenhand.tuning.study import replayed

    board, tune = replayed(tuning.study), tuning.study.tune
    console.print(plan_table(tuning, board))
    known = list(board.cells.values())
    cached = sum(c.status.good for c in known)
    later = sum(board.coming.values())
    text = f"{board.total} stages: {cached} cached, {len(known) - cached} to run" + (f", {later} not known yet" if later else "")
    judged = tune.trials * len(tuning.study.spaces) * len(tune.seeds) * tune.prompts
    lines = [text, f"{judged} answers to validation prompts, each judged against the baseline's"]
    if tune.objective == "win_rate":
        low, high = win_rate([0.0, 1.0] * (tune.prompts // 2)).ci95
        lines.append(f"over {tune.prompts} prompts a win rate near one half is known to about ±{50 * (high - low):.0f} points")
    board.usual = usual(tuning.prepared.out)
    board.workers = tuning.prepared.at_a_time() or 1
    seconds, certain = board.eta()
    if seconds:
        lines.append(f"{'about' if certain else 'at least'} {duration(seconds)}, by the stages that ran here before")
    for line in [*lines, *_left_out(tuning)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _left_out(tuning: Tuning) -> list[str]:
    from evenhand.spec.search_spaces import left_out

    return [f"Not tuned: {arm}, because {why}." for arm, why in left_out(tuning.study.experiment).items()]


def plan_table(tuning: Tuning, board: RunState) -> Table:
    """Every trial that is known: its settings, its state, and what it costs."""
    study = tuning.study
    table = Table(title=f"{study.tune.trials} trials for each of {len(study.spaces)} arms, by {study.tune.measure}", box=None)
    for column in ("arm", "trial", "settings", "state", "cost of a seed"):
        table.add_column(column, no_wrap=column != "settings", overflow="fold")
    for arm, trials in study.trials.items():
        for trial in trials:
            status = study.outcome(trial, board).status
            begun = any(study.store.partial(board.cells[n].node.key).is_dir() for n in trial.fits.values())
            state = "cached" if status == "done" else status if status == "failed" else "to resume" if begun else "to run"
            cost = next((board.cells[name].node.cost for name in trial.fits.values()), "")
            row = (arm, str(trial.number), settings_text(trial.settings), state, cost)
            table.add_row(*(Text(cell, style="dim" if state == "cached" else "") for cell in row))
        if rest := study.tune.trials - len(trials):
            numbers = f"{len(trials) + 1} to {study.tune.trials}" if rest > 1 else str(study.tune.trials)
            table.add_row(arm, numbers, Text("asked for when earlier ones have ended", style="dim"), "to come", "")
    return table


def _show(found: TuningRecord, out: Path, console: Console) -> None:
    from evenhand.report.tuning import write

    page = write(out)
    console.print(chosen_table(found))
    for arm, raw in found.arms.items():
        for text in remarks(raw):
            console.print(f"{arm}: {text}", markup=False, highlight=False, soft_wrap=True)
    for arm, why in found.left_out.items():
        console.print(f"{arm}: not tuned, because {why}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Trials: {page}", soft_wrap=True, highlight=False)
    console.print(f"Next: EVENHAND_STORE={out / 'store'} evenhand run {out / 'tuned.yaml'}", soft_wrap=True, highlight=False)


def chosen_table(found: TuningRecord) -> Table:
    """What was chosen for every arm."""
    table = Table(title=f"Best of {found.trials} trials by {found.measure}", title_justify="left", box=None)
    for column in ("arm", "trial", "settings", "value", "95% interval", "as given", "failed"):
        left = column in ("arm", "settings")
        table.add_column(column, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    for arm, raw in found.arms.items():
        if raw.settings is None or raw.ci95 is None:
            table.add_row(arm, "", "every trial failed", "", "", "", str(len(raw.trials)))
            continue
        given, (low, high) = raw.as_given, raw.ci95
        table.add_row(arm, str(raw.chosen), settings_text(raw.settings), f"{raw.value:.3f}", f"{low:.3f} to {high:.3f}",
                      "" if given is None else f"{given:.3f}", str(raw.failed))  # fmt: skip
    return table


def remarks(raw: TunedArmRecord) -> list[str]:
    """What to keep in mind about a choice: trials that are as good, edges, failures with their first cause."""
    found = []
    if raw.alike:
        found.append(f"the best {len(raw.alike) + 1} trials cannot be told apart")
    found += [f"{edge}: a wider space may hold a better one" for edge in raw.edges]
    if failed := [t for t in raw.trials if t.status == "failed"]:
        found.append(f"trial {', '.join(str(t.trial) for t in failed)} failed; the first: {failed[0].error}")
    return found


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings in one line.

    >>> settings_text({"learning_rate": 0.0001, "beta": 0.1})
    'learning_rate=0.0001 beta=0.1'
    """
    return " ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in settings.items())
