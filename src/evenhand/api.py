"""evenhand from Python: `evenhand.run`, `evenhand.load`, `evenhand.compare`; results with frames and plots. See `docs/python.md`.

The losses and estimators by themselves are plain functions on tensors: `evenhand.core` and `evenhand.stats`.
"""

from __future__ import annotations

import json
import multiprocessing
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from evenhand import run_experiment
from evenhand.configfile.schema import to_json
from evenhand.doctor import Severity, examine
from evenhand.errors import UserError
from evenhand.plan.costs.forecast import PlanCosts
from evenhand.plan.costs.machine import Machine
from evenhand.plan.costs.predict import costs
from evenhand.report import write
from evenhand.report.evaluations import evaluations_rows
from evenhand.report.exports import contrasts_rows, results_rows
from evenhand.report.figures import PlotFigure
from evenhand.report.gallery import figure
from evenhand.report.plots.phases import mean_seconds
from evenhand.report.run_data import RunData, read_run
from evenhand.report.summary import summarise
from evenhand.results import files
from evenhand.results.record import Results
from evenhand.results.side_by_side.compared import RunsCompared, compare_runs
from evenhand.results.side_by_side.differences import RunDifference
from evenhand.runner.progress import choose_view

if TYPE_CHECKING:
    from pandas import DataFrame


SHOWN = ("method", "verdict", "win_rate", "ci95_low", "ci95_high", "p_holm", "mean_length", "kl")
"""Columns of the table that a notebook shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResults(Results):
    """What a run found, and the `folder` where its metrics, samples and models lie."""

    folder: Path

    def frame(self) -> DataFrame:
        """A row per arm: verdict, win rate with interval and seeds, at equal length, measures of the answers, budget.

        The columns are those of `results.csv`; shares lie in [0, 1], lengths are in tokens, KL in nats per sequence.
        """
        seconds = {arm: sum(phases.values()) for arm, phases in mean_seconds(self._data().ledgers).items()}
        return _frame(results_rows(summarise(self), seconds)).set_index("arm")

    def contrasts_frame(self) -> DataFrame:
        """A row per ordered pair of arms: `a` minus `b`, as they are and (`lc_...`) at equal length."""
        return _frame(contrasts_rows(summarise(self))).set_index(["a", "b"])

    def evaluations_frame(self) -> DataFrame:
        """A row per evaluation beside the comparison and arm: its rate, the difference to the baseline's, and the verdict.

        The columns are those of `evaluations.csv`; one correction covers these contrasts and those of `contrasts_frame` with the
        baseline.
        """
        return _frame(evaluations_rows(summarise(self))).set_index(["evaluation", "arm"])

    def metrics_frame(self) -> DataFrame:
        """A row per arm, seed and training step, with every metric that any arm recorded; NaN where an arm has none."""
        import pandas as pd

        rows = [
            {"arm": arm, "seed": int(seed), **row}
            for arm, seeds in self._data().curves.items()
            for seed, steps in seeds.items()
            for row in steps
        ]
        return pd.DataFrame(rows, columns=list(dict.fromkeys(key for row in rows for key in row)) or ["arm", "seed", "step"])

    def plot(self, name: str = "win_rates") -> PlotFigure:
        """A figure that notebooks show: "win_rates", "frontier_reward", "frontier_gold", "best_of_n", "length_grid", "phases",
        or the name of a training metric such as "kl". It has its numbers as `csv`, and `save(path)` writes an SVG.

        Raises: UserError for an unknown name, and where the run recorded nothing of the kind.
        """
        return figure(self._data(), summarise(self), name)

    def headline(self) -> str:
        """The finding in one line, as the report has it."""
        from evenhand.report.text import headline

        return headline(summarise(self)).title

    def report(self) -> Path:
        """Writes `report.html`, `results.csv` and `results.tex` into the folder; returns the page's path."""
        return write(self.folder)

    def _repr_html_(self) -> str:
        table = self.frame()[list(SHOWN)].to_html(na_rep="", float_format="%.3g")
        return f"<p><strong>{escape(self.headline())}</strong></p>{table}"

    def _data(self) -> RunData:
        return read_run(self.folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedResults(RunsCompared):
    """Several runs, compared with the first of them: settings, yardstick, differences; as frames and as a page."""

    def frame(self) -> DataFrame:
        """A row per arm and run: the columns of `RunResults.frame`, and the difference to the first run where there is one.

        `less_first` is a share: this run's win rate minus the first one's, paired over prompts and the seeds of both, with its
        own 95% interval, the one for all differences here together, and Holm's p over them; NaN where the runs are not on one
        scale, which `comparable` says.
        """
        import pandas as pd

        tables = []
        for run in self.runs:
            own = load(run.folder).frame()
            found = [self.difference(str(arm), run.label) or RunDifference(arm=str(arm), label=run.label) for arm in own.index]
            columns = {
                "less_first": [d.difference for d in found],
                "less_first_ci95_low": [d.ci95 and d.ci95[0] for d in found],
                "less_first_ci95_high": [d.ci95 and d.ci95[1] for d in found],
                "less_first_ci95_simultaneous_low": [d.ci95_simultaneous and d.ci95_simultaneous[0] for d in found],
                "less_first_ci95_simultaneous_high": [d.ci95_simultaneous and d.ci95_simultaneous[1] for d in found],
                "less_first_p_holm": [d.p_holm for d in found],
            }
            own[list(columns)] = pd.DataFrame(columns, index=own.index, dtype=float)
            tables.append(own.assign(comparable=self.comparable(run.label), run=run.label).set_index("run", append=True))
        return pd.concat([t.loc[[arm]] for arm in self.arms for t in tables if arm in t.index.get_level_values("arm")])

    def settings_frame(self) -> DataFrame:
        """A row per setting that differs, a column per run, with their values in words; `touches` says what it bears on."""
        rows: list[list[object]] = [[row.key, row.touches.value, *row.values] for row in self.settings.apart]
        return _frame((["key", "touches", *self.labels], rows)).set_index("key")

    def headline(self) -> str:
        """What differs, in one line."""
        from evenhand.report.side_by_side.text import headline

        return headline(self).title

    def report(self, path: str | Path = "comparison.html") -> Path:
        """Writes the page of `evenhand compare`; returns its path."""
        from evenhand.report.side_by_side.page import write_comparison

        return write_comparison(self, Path(path))

    def _repr_html_(self) -> str:
        return f"<p><strong>{escape(self.headline())}</strong></p>{self.settings_frame().to_html()}"


def run(
    experiment: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    out: str | Path | None = None,
    workers: int | None = None,
    check: bool = True,
    quiet: bool = False,
) -> RunResults:
    """Trains, judges and compares what an experiment names; again with the same arguments it goes on, or loads what is there.

    `experiment`: a YAML file, the name of a built-in experiment, a run directory, or the content of an experiment file, as text
    or as data.
    `overrides`: values by key path, `{"train.steps": 50}`, or "train.steps=50" as on the command line. `out`: the run
    directory (`runs/NAME`). `workers`: stages at a time, 0 for this process alone. `check`: let the doctor look first.
    A script calls it under `if __name__ == "__main__":`, since workers import the script.

    Stages that fail stop no others: the results have them in `failed`, and a warning says so.

    Raises: UserError for faults of the experiment, for failed checks, and where nothing could be compared.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(
            "evenhand.run was called by a worker that was importing the script", where="evenhand.run",
            fix="call it under `if __name__ == \"__main__\":`, or with workers=0",
        )  # fmt: skip
    prepared = run_experiment.prepare(experiment, _settings(overrides), None if out is None else Path(out))
    if check:
        _examine(prepared)
    outcome, found = run_experiment.execute(prepared, workers=workers, view=_view(quiet))
    if found is None:
        name, error = next(iter(outcome.errors.items()))
        raise UserError("nothing could be compared", where=name, why=error, fix=f"the logs are in {prepared.out / 'logs'}")
    if not outcome.ok:
        warnings.warn(f"{len(outcome.errors)} stages failed or could not start; see `failed` of the results", stacklevel=2)
    return load(prepared.out)


def plan(
    experiment: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    out: str | Path | None = None,
    workers: int | None = None,
    machine: Machine | None = None,
) -> PlanCosts:
    """What `run` with these arguments will hold and take, stage by stage and in all; nothing is trained.

    `machine` is one to plan for in place of this one, such as `evenhand.plan.costs.machine.H100`. See docs/scaling.md.
    """
    prepared = run_experiment.prepare(experiment, _settings(overrides), None if out is None else Path(out))
    return costs(prepared.plan, prepared.store, workers=prepared.at_a_time(workers), threads=prepared.threads, machine=machine)


def load(run_dir: str | Path) -> RunResults:
    """The results of a run directory, of this version of evenhand or an older one.

    Raises: UserError where there are none.
    """
    found = files.load(run_dir)
    return RunResults(folder=Path(run_dir), **{f.name: getattr(found, f.name) for f in fields(found)})


def compare(runs: Sequence[str | Path | RunResults]) -> ComparedResults:
    """Run directories (or loaded results) beside each other: what differs, whether the figures are on one scale, how far apart.

    Raises: UserError where there are fewer than two, where one is named twice, and where one has no results.
    """
    found = compare_runs([one.folder if isinstance(one, RunResults) else one for one in runs])
    return ComparedResults(**{f.name: getattr(found, f.name) for f in fields(found)})


def _settings(overrides: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Overrides as the command line has them; JSON is YAML.

    >>> _settings({"seeds": [0, 1], "train.learning_rate": 1e-4, "model.path": Path("models/base")})
    ['seeds=[0, 1]', 'train.learning_rate=0.0001', 'model.path="models/base"']
    """
    if isinstance(overrides, Mapping):
        return [f"{path}={json.dumps(to_json(value))}" for path, value in overrides.items()]
    return list(overrides)


def _examine(prepared: run_experiment.Run) -> None:
    """The quick checks before a run: failures that nobody has waived are an error, warnings are warned of."""
    diagnosis = examine(prepared, quick=True)
    for result in diagnosis.results:
        for finding in result.findings:
            if finding.severity == Severity.WARN and not result.waived:
                warnings.warn(f"{result.check.id}: {finding.seen}", stacklevel=3)
    if not diagnosis.ok:
        seen = "; ".join(f"{r.check.id}: {f.seen}" for r in diagnosis.failed for f in r.findings if f.severity == Severity.FAIL)
        raise UserError(
            "checks failed", where="evenhand.run", why=seen,
            fix='mend it, or waive it in the experiment: {"doctor": {"waive": {ID: "the reason"}}}',
        )  # fmt: skip


def _view(quiet: bool) -> Any:
    return choose_view(Console(stderr=True), quiet=quiet)


def _frame(rows: tuple[list[str], list[list[object]]]) -> DataFrame:
    import pandas as pd

    header, content = rows
    return pd.DataFrame(content, columns=header)
