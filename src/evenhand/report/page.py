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
from evenhand.report.evaluations import evaluations_csv, evaluations_tex, shared_correction
from evenhand.report.exports import contrasts_csv, results_csv, results_tex
from evenhand.report.figures import data_link
from evenhand.report.folding import folded
from evenhand.report.judge_card import jury, probe_tables, self_test, self_test_warnings
from evenhand.report.plots.curves import DETAILS, METRICS, curve_figures, loss_figures, other_metrics, shared_figures
from evenhand.report.plots.frontier import frontier_figures
from evenhand.report.plots.lengths import length_grid_figure
from evenhand.report.plots.over_training import over_training_figure
from evenhand.report.plots.phases import mean_seconds, phase_figure
from evenhand.report.plots.signals import best_of_n_figure, length_figures
from evenhand.report.plots.win_rates import win_rate_figure
from evenhand.report.run_data import RunData, read_run
from evenhand.report.selection import chosen_rows, shared_prompts, validation_figures
from evenhand.report.stage_costs import stage_costs
from evenhand.report.staleness import staleness_rows
from evenhand.report.summaries import (
    VERDICT_COLUMNS,
    answer_columns,
    arm_notes,
    experiment_blocks,
    judge_facts,
    judge_warnings,
    pass_rates,
    reward_model_cards,
    shown_columns,
)
from evenhand.report.summary import Summary, summarise
from evenhand.report.svg import FONT
from evenhand.report.text import (
    Headline,
    cautions,
    corrected,
    excluded,
    headline,
    held_equal,
    listed,
    looked,
    power,
    power_among,
    unscored,
)
from evenhand.report.training_warnings import stopped_early, warning_rows
from evenhand.report.tuned import tuned_rows
from evenhand.report.under_way import UnderWay, read_under_way
from evenhand.results.files import NAME
from evenhand.results.unchanged import CSV, EVALUATIONS_CSV, EVALUATIONS_TEX, PAGE, TEX, WITH_PAGE
from evenhand.serve.guard import content_policy, own_script
from evenhand.store.whole import write_whole

SHOWN_FIRST = 6
"""Arms whose answers are shown at first where there are many."""
AT_A_GLANCE = 8
"""Arms, the best ones, whose win rates stand beside the headline."""
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
    texts = {PAGE: html(run, summary), CSV: results_csv(summary, _seconds(run)), TEX: results_tex(summary)}
    if summary.evaluations:
        texts |= {EVALUATIONS_CSV: evaluations_csv(summary), EVALUATIONS_TEX: evaluations_tex(summary)}
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
    context = _context(run, summarise(run.results))
    context |= {"headline": Headline(way.title, (way.foot,)), "win_rates": None, "power": None, "glance": ()}
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
    formats = ("fixed", "percent", "interval", "points", "points_interval", "p_value", "amount", "duration", "significant")
    environment.finalize = _visible
    environment.filters.update({name: getattr(formatting, name) for name in formats})
    environment.filters["code"] = formatting.as_code
    environment.filters["breakable"] = formatting.breakable
    environment.tests["number"] = formatting.is_number
    environment.tests["blocked"] = lambda error: error.startswith("needs ")  # as the runner words it
    return environment


def _visible(value: Any) -> Any:
    """Text of models and data without what acts on a reader: control characters and marks of direction as escapes."""
    return spelled_out(value) if type(value) is str else value  # markup is ours, and is left


def _context(run: RunData, summary: Summary) -> dict[str, Any]:
    results = run.results
    judge = [*judge_warnings(results.judge), *self_test_warnings(results.judge)]
    cards, probes = reward_model_cards(results.reward_models), probe_tables(results.reward_models)
    spent = budget(summary, run.ledgers, run.experiment, run.curves)
    return {
        "version": __version__,
        "name": _title(run),
        "description": results.description,
        "notes": _notes(summary),
        "headline": headline(summary),
        "power": " ".join(filter(None, (power(summary), power_among(summary)))),
        "looked": looked(summary),
        "joint": any(arm.ci95_simultaneous for arm in summary.arms),
        "corrected": corrected(summary),
        "cautions": cautions(results, judge),
        "excluded": excluded(results),
        "unscored": unscored(results),
        "summary": summary,
        "trained": [arm for arm in summary.ranked if run.curves.get(arm.name)],
        "facts": held_equal(results),
        "judge_facts": judge_facts(results.judge),
        "judge_warnings": judge,
        "self_test": self_test(results.judge),
        "jury": jury(results.judge),
        "probes": probes,
        "glance": summary.challengers[:AT_A_GLANCE],
        "folded": folded(results, spent, cards, probes),
        "held_equal": results.held_equal,
        "deviations": results.deviations,
        "waived": results.waived,
        "columns": shown_columns(VERDICT_COLUMNS, summary),
        "answer_columns": answer_columns(summary),
        "pass_rates": pass_rates(summary),
        "matrix": _matrix(summary),
        "reward_models": cards,
        "has_controlled": any(contrast.length_controlled is not None for contrast in summary.contrasts.values()),
        "budget": spent,
        "stage_costs": stage_costs(run.folder, run.experiment),
        "cards": answer_cards(results.samples, summary, run.turns),
        "seed_shown": next((s.seed for s in results.samples if s.seed is not None), None),
        "shown_first": [arm.name for arm in summary.ranked[:SHOWN_FIRST]] if summary.crowded else [a.name for a in summary.arms],
        "training": training_samples(run.samples, summary),
        "failed": results.failed,
        "experiment": experiment_blocks(run.experiment),
        "csv_link": data_link(results_csv(summary, _seconds(run)), "text/csv"),
        "contrasts_link": data_link(contrasts_csv(summary), "text/csv"),
        "tex_link": data_link(results_tex(summary), "application/x-tex"),
        **_figures(run, summary),
    }


def _figures(run: RunData, summary: Summary) -> dict[str, Any]:
    styles = {arm.name: arm.style for arm in summary.arms}
    results = run.results
    return {
        "over_training": over_training_figure(results, summary),
        "steps": results.over_training,
        "evaluations": summary.evaluations,
        "shared_correction": shared_correction(summary),
        "evaluation_links": [
            ("CSV", EVALUATIONS_CSV, data_link(evaluations_csv(summary), "text/csv")),
            ("LaTeX", EVALUATIONS_TEX, data_link(evaluations_tex(summary), "application/x-tex")),
        ],
        "steps_shown": [arm for arm in summary.ranked if arm.name in results.over_training],
        "stale": staleness_rows(results, styles, run.ledgers),
        "chosen": chosen_rows(results.selection, styles),
        "tuning": results.tuning,
        "tuned": tuned_rows(results.tuning, styles),
        "shared_prompts": shared_prompts(results.selection),
        "validation": validation_figures(results.selection, styles),
        "said": warning_rows(results, styles),
        "rollouts": [(arm, arm.result.sampler_gap) for arm in summary.ranked if arm.result.sampler_gap is not None],
        "stopped": stopped_early(results, styles),
        "length_grid": length_grid_figure(results.length_grid, summary.reference),
        "win_rates": win_rate_figure(summary),
        "curves": curve_figures(run.curves, styles, METRICS),
        "losses": loss_figures(run.curves, styles),
        "shared_curves": shared_figures(run.shared),
        "details": curve_figures(run.curves, styles, (*DETAILS, *other_metrics(run.curves))),
        "frontier": frontier_figures(results, summary, run.curves),
        "best_of_n": best_of_n_figure(results.best_of_n),
        "best_of_arms": [f for arm, c in results.best_of_n_by_arm.items() if (f := best_of_n_figure(c, arm)) is not None],
        "length_maps": length_figures(results.length_bias),
        "phases": phase_figure(run.ledgers, summary),
    }


def _matrix(summary: Summary) -> list[str]:
    """The names that stand in the matrix of contrasts, the best arms first; the baseline last if it is no arm."""
    named = {name for pair in summary.contrasts for name in pair}
    order = [arm.name for arm in summary.ranked if arm.name in named]
    return order + sorted(named - set(order))


def _seconds(run: RunData) -> dict[str, float]:
    return {arm: sum(phases.values()) for arm, phases in mean_seconds(run.ledgers).items()}


def _notes(summary: Summary) -> list[tuple[str, str]]:
    """What the statistics say their intervals cannot say, with the arms that it is said of."""
    notes: dict[str, list[str]] = {}
    for arm, note in arm_notes(summary):
        notes.setdefault(note, []).append(arm)
    return [(note, listed(arms)) for note, arms in notes.items()]


def _title(run: RunData) -> str:
    return run.results.name or run.folder.resolve().name


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
