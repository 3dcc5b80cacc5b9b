"""Puts the page together: reads the run, draws the figures, fills the template, writes the files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from evenhand import __version__
from evenhand.display import spelled_out
from evenhand.report import formatting, style
from evenhand.report.answers import answer_cards, training_samples
from evenhand.report.budget import budget
from evenhand.report.evaluations import evaluations_rows, evaluations_tex, shared_correction
from evenhand.report.exports import contrasts_rows, results_rows, results_tex
from evenhand.report.figures import csv_text, data_link
from evenhand.report.folding import folded
from evenhand.report.gallery import FIGURES
from evenhand.report.plots.curves import DETAILS, METRICS, curve_figures, loss_figures, other_metrics, shared_figures
from evenhand.report.plots.phases import mean_seconds
from evenhand.report.plots.signals import best_of_n_figure, length_figures
from evenhand.report.run_data import RunData, read_run
from evenhand.report.scorers import PROBES, faults, gauge, judge_facts, judge_warnings, pair_measures, self_test_measures
from evenhand.report.stage_costs import stage_costs
from evenhand.report.summaries import VERDICT_COLUMNS, answer_columns, arm_notes, experiment_blocks, shown_columns
from evenhand.report.summary import Summary, summarise
from evenhand.report.svg import FONT
from evenhand.report.text import Headline, cautions, corrected, excluded, headline, listed, looked, power, power_among, unscored
from evenhand.report.training import fired, shared_prompts, stale_arms, stopped_early, validation_figures, warnings_by_rule
from evenhand.report.under_way import UnderWay, read_under_way
from evenhand.results.files import NAME
from evenhand.results.unchanged import CSV, EVALUATIONS_CSV, EVALUATIONS_TEX, PAGE, TEX, WITH_PAGE
from evenhand.serve.guard import content_policy, own_script
from evenhand.store.whole import write_whole

FORMATS = (
    "fixed", "signed", "percent", "interval", "points", "points_interval", "between", "with_interval", "p_value", "amount",
    "duration", "significant", "setting_text", "as_code", "breakable",
)  # fmt: skip
"""What templates write numbers and texts with."""
WORDS = (
    corrected, excluded, faults, gauge, judge_facts, looked, pair_measures, power, power_among, self_test_measures,
    shared_correction, shared_prompts, stopped_early, unscored, warnings_by_rule,
)  # fmt: skip
"""What templates ask of the record, beside its own fields."""
_TEMPLATES = Path(__file__).parent / "templates"


def write_page(run_dir: Path) -> Path:
    """`report.html`, `results.csv` and `results.tex` of `run_dir`; of a run without results the page alone, as far as it is.

    With evaluations beside the comparison also `evaluations.csv` and `evaluations.tex`.
    """
    if not (run_dir / NAME).is_file() and (run_dir / "experiment.json").is_file():
        write_whole(run_dir / PAGE, html_under_way(*read_under_way(run_dir), assets()))
        return run_dir / PAGE
    run = read_run(run_dir)
    summary = summarise(run.results)
    texts = {PAGE: html(run, summary), **_tables(run, summary)}
    for name in WITH_PAGE:
        if name in texts:
            write_whole(run_dir / name, texts[name])
        else:  # of a run that had some once
            (run_dir / name).unlink(missing_ok=True)
    return run_dir / PAGE


def html(run: RunData, summary: Summary, page: Mapping[str, str] | None = None) -> str:
    """The page as text; `page` None is that of `assets`, which opens from disk."""
    context = {**_context(run, summary), **(page or assets())}
    return environment().get_template("report.html.j2").render(**context, under_way=None)


def html_under_way(run: RunData, way: UnderWay, page: Mapping[str, str]) -> str:
    """The same page of a run that is not done: how far it is in place of the verdict; `page` as of `assets`."""
    context = {**_context(run, summarise(run.results)), "headline": Headline(way.title, (way.foot,))}
    return environment().get_template("report.html.j2").render(**context, **page, under_way=way)


@cache  # compiling the templates is a tenth of the work on a page, and `watch` makes it again and again
def environment() -> jinja2.Environment:
    """Templates with our filters; whatever a model wrote is text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,  # whatever a model wrote is text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.finalize = _visible
    environment.filters |= {name: getattr(formatting, name) for name in FORMATS} | {
        f.__name__: f for f in (data_link, fired, listed)
    }
    environment.globals |= {function.__name__: function for function in WORDS} | {"PROBES": PROBES}
    environment.tests["number"] = formatting.is_number
    environment.tests["blocked"] = lambda error: error.startswith("needs ")  # as the runner words it
    return environment


def _visible(value: Any) -> Any:
    """Text of models and data without what acts on a reader: control characters and marks of direction as escapes."""
    return spelled_out(value) if type(value) is str else value  # markup is ours, and is left


def _context(run: RunData, summary: Summary) -> dict[str, Any]:
    """The record itself, what is read beside it, and the figures."""
    results, styles = run.results, summary.styles
    judge, spent = judge_warnings(results.judge), budget(summary, run.ledgers, run.experiment, run.curves)
    return {
        "version": __version__,
        "name": results.name or run.folder.resolve().name,
        "results": results,
        "summary": summary,
        "styles": styles,
        "headline": headline(summary),
        "judge_warnings": judge,
        "cautions": cautions(results, judge),
        "notes": _notes(summary),
        "columns": shown_columns(VERDICT_COLUMNS, summary),
        "answer_columns": answer_columns(summary),
        "matrix": _matrix(summary),
        "trained": [arm for arm in summary.ranked if run.curves.get(arm.name)],
        "chosen": [
            (arm, seed, found)
            for arm, seeds in results.selection.items() if arm in styles
            for seed, found in seeds.items() if found.chosen is not None
        ],
        "stale": stale_arms(summary, run.ledgers),
        "budget": spent,
        "folded": folded(results, spent),
        "stage_costs": stage_costs(run.folder, run.experiment),
        "cards": answer_cards(results.samples, summary, run.turns),
        "training": training_samples(run.samples, summary),
        "experiment": experiment_blocks(run.experiment),
        "tables": _tables(run, summary),
        **_figures(run, summary),
    }  # fmt: skip


def _figures(run: RunData, summary: Summary) -> dict[str, Any]:
    results, styles = run.results, summary.styles
    figures = {name: draw(run, summary) for name, draw in FIGURES.items()}
    return {
        **figures,
        "frontier": [found for name in ("frontier_reward", "frontier_gold") if (found := figures[name]) is not None],
        "validation": validation_figures(results.selection, styles),
        "curves": curve_figures(run.curves, styles, METRICS),
        "losses": loss_figures(run.curves, styles),
        "shared_curves": shared_figures(run.shared),
        "details": curve_figures(run.curves, styles, (*DETAILS, *other_metrics(run.curves))),
        "best_of_arms": [f for arm, c in results.best_of_n_by_arm.items() if (f := best_of_n_figure(c, arm)) is not None],
        "length_maps": length_figures(results.length_bias),
    }


def _tables(run: RunData, summary: Summary) -> dict[str, str]:
    """The tables that the page links to, by file name."""
    seconds = {arm: sum(phases.values()) for arm, phases in mean_seconds(run.ledgers).items()}
    found = {CSV: csv_text(*results_rows(summary, seconds)), TEX: results_tex(summary)}
    found["contrasts.csv"] = csv_text(*contrasts_rows(summary))
    if not summary.results.evaluations:
        return found
    return {**found, EVALUATIONS_CSV: csv_text(*evaluations_rows(summary)), EVALUATIONS_TEX: evaluations_tex(summary)}


def _matrix(summary: Summary) -> list[str]:
    """The names that stand in the matrix of contrasts, the best arms first; the baseline last if it is no arm."""
    named = {name for pair in summary.contrasts for name in pair}
    order = [arm.name for arm in summary.ranked if arm.name in named]
    return order + sorted(named - set(order))


def _notes(summary: Summary) -> list[tuple[str, str]]:
    """What the statistics say their intervals cannot say, with the arms that it is said of."""
    notes: dict[str, list[str]] = {}
    for arm, note in arm_notes(summary):
        notes.setdefault(note, []).append(arm)
    return [(note, listed(arms)) for note, arms in notes.items()]


def live_assets() -> dict[str, str]:
    """Those of a page that asks its server how far the run is."""
    script = "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.js", "live.js"))
    return {**assets(), "script": script, "policy": content_policy(script)}


def assets() -> dict[str, str]:
    """Style and script as text, and the policy that forbids the page everything else."""
    sheet = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    # only this very script runs, and nothing is ever fetched; styles stay open because SVG needs style attributes
    policy = f"default-src 'none'; {own_script(script)}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
    light, dark = style.css_variables("light"), style.css_variables("dark")
    variables = f":root{{--sans:{FONT};{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return {"style": variables + "\n" + sheet, "script": script, "policy": policy}
