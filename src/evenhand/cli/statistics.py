"""`evenhand stats`: the statistics by themselves, for outcome files made elsewhere and for studies not yet run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from evenhand.cli.tables import agreement_lines, comparison_lines, contrast_details, plain_lines, rate_lines, rating_lines, show
from evenhand.errors import UserError

app = typer.Typer(
    name="stats",
    help="Intervals, tests, ratings and planning for outcome files made elsewhere (CSV, TSV, JSON, JSONL).",
    no_args_is_help=True,
)
Outcomes = Annotated[
    Path,
    typer.Argument(help="Columns arm, prompt, outcome in [0, 1][, seed, sample, cluster, length, baseline_length, difficulty]."),
]
Value = Annotated[str, typer.Option(help="Compare this column instead: any numbers, rewards for example.")]
Cluster = Annotated[str, typer.Option(help="The column that names a prompt's topic or document.")]
Out = Annotated[Path | None, typer.Option(help="Write everything here as JSON.")]


@app.command()
def rate(file: Outcomes, value: Value = "outcome", cluster: Cluster = "cluster", out: Out = None) -> None:
    """Win rate of each arm: Wilson or two-way interval, bootstrap, clustered errors, and at equal length in two forms."""
    from evenhand.evaluation.outcomes import rate, tabulate

    rows = _outcomes(file, value, cluster)
    show(rate_lines(arms := {a: rate(t, full=True) for a, t in tabulate(rows).items()}), {"arms": arms}, out)


@app.command()
def compare(
    file: Outcomes,
    contrast: Annotated[list[str] | None, typer.Option(help="A:B, declared before looking; may be given several times.")] = None,
    against: Annotated[str, typer.Option(help="Compare every arm with this one only.")] = "",
    margin: Annotated[float | None, typer.Option(min=0, help="Are two arms equivalent within this difference?")] = None,
    unmatched: Annotated[bool, typer.Option("--unmatched", help="Seeds of two arms have nothing in common.")] = False,
    value: Value = "outcome",
    cluster: Cluster = "cluster",
    out: Out = None,
) -> None:
    """Differences of arms on the same prompts: two-way interval, Holm, permutation, sign, McNemar, clusters, equivalence."""
    from evenhand.evaluation.outcomes import compare
    from evenhand.stats import paired_difference, unmatched_difference

    rows = _outcomes(file, value, cluster)
    pairs = _pairs(rows, contrast or [], against)
    found = compare(rows, margin, contrasts=pairs, difference=unmatched_difference if unmatched else paired_difference, full=True)
    if not found["contrasts"]:
        raise UserError("there is one arm only", where=str(file), fix="`evenhand stats rate`, or add rows of another arm")
    show([*comparison_lines(found), *contrast_details(found)], found, out)


@app.command()
def ratings(
    file: Annotated[Path, typer.Argument(help="Columns first, second, outcome of first[, prompt, position, first_length, ...].")],
    anchor: Annotated[str, typer.Option(help="The player whose Elo is 1000 (default: the mean is).")] = "",
    ties: Annotated[bool, typer.Option("--ties", help="Also fit ties as an outcome of their own (Davidson).")] = False,
    out: Out = None,
) -> None:
    """Bradley-Terry ratings of many players, with intervals over prompts."""
    from evenhand.evaluation.outcome_files import BATTLES, is_battles, read_outcomes
    from evenhand.evaluation.pairwise_files import ratings

    rows = read_outcomes(file)
    if not is_battles(rows):
        raise UserError("does not hold battles", where=str(file), fix=f"columns: {BATTLES}")
    found = ratings(rows, anchor=anchor or None, ties=ties)
    show(rating_lines(found), found, out)


@app.command()
def agreement(
    file: Annotated[Path, typer.Argument(help="Columns item, rater, label; or a row per item and a column per rater.")],
    rater: Annotated[list[str] | None, typer.Option(help="A rater's column; may be given several times.")] = None,
    level: Annotated[str, typer.Option(help="What labels are: nominal, ordinal or interval (default: by the labels).")] = "",
    out: Out = None,
) -> None:
    """How far annotators or judges agree beyond chance: Krippendorff's alpha, Fleiss' and Cohen's kappa, with intervals."""
    from evenhand.evaluation.ratings_files import agreement

    found = agreement(file, rater or [], level)
    show(agreement_lines(found), found, out)


@app.command()
def style(
    file: Annotated[Path, typer.Argument(help="AlpacaEval annotations, outcomes with texts, verdicts, Arena-Hard judgments.")],
    answers: Annotated[Path | None, typer.Option(help="The model's answers, where the file has no texts.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="The baseline's answers.")] = None,
    out: Out = None,
) -> None:
    """Length, headers, lists and bold of both sides, and the win rate if both were dressed alike."""
    from evenhand.evaluation.style import style_report

    found = style_report(file, answers, baseline)
    show(plain_lines(found["models"]), found, out)


@app.command()
def plan(
    difference: Annotated[float, typer.Option(min=0, help="The difference to be found, as a share.")] = 0.05,
    prompts: Annotated[int, typer.Option(min=2)] = 500,
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds per arm.")] = 3,
    sd: Annotated[
        float | None, typer.Option(min=0, help="Sd over prompts of one seed's paired difference (a judge's: 0.6 to 0.7).")
    ] = None,
    sd_prompt: Annotated[float | None, typer.Option(min=0, help="The part of it that all seeds share on a prompt.")] = None,
    sd_seed: Annotated[float | None, typer.Option(min=0, help="Sd of a seed's effect on the difference.")] = None,
    contrasts: Annotated[int, typer.Option(min=1, help="Contrasts that the verdict is corrected for.")] = 1,
    power: Annotated[float, typer.Option(help="Probability of finding it.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Probability of finding what is not there.")] = 0.05,
    pilot: Annotated[Path | None, typer.Option(help="Outcomes of a smaller study: take the sds from it.")] = None,
    contrast: Annotated[str, typer.Option(help="A:B of the pilot, where it has more than two arms.")] = "",
    out: Out = None,
) -> None:
    """How many prompts a difference needs, and what a design can find."""
    from evenhand.evaluation.planning import plan_study, spreads

    known = spreads(_outcomes(pilot, "outcome", "cluster"), _split(contrast) if contrast else None) if pilot else {}
    sds = _spreads(known, sd, sd_prompt, sd_seed)
    found = plan_study(difference, prompts, seeds, **sds, power=power, alpha=alpha, contrasts=contrasts)
    show(found["lines"], {k: v for k, v in found.items() if k != "lines"}, out)


@app.command()
def holm(p_values: Annotated[list[float], typer.Argument(help="The p-values of one family of pre-declared tests.")]) -> None:
    """Holm's adjustment of p-values."""
    from evenhand.stats import holm

    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        print(f"{p:.4g} -> {adjusted:.4g}")


def _spreads(known: Mapping[str, float], sd: float | None, sd_prompt: float | None, sd_seed: float | None) -> dict[str, float]:
    """The variance parts of a difference: what the options say, else the pilot, else a judge's usual spread."""
    prompt = sd_prompt if sd_prompt is not None else known.get("sd_prompt", 0.0)
    noise = known.get("sd_noise", 0.65)
    if sd is not None:
        if prompt > sd:
            raise UserError(f"{prompt:g} of {sd:g}", where="--sd-prompt", why="it is a part of --sd", fix="give at most --sd")
        noise = math.sqrt(sd**2 - prompt**2)
    seed = sd_seed if sd_seed is not None else known.get("sd_seed", 0.0)
    return {"sd_noise": noise, "sd_prompt": prompt, "sd_seed": seed, "gap": known.get("gap", 1.0)}


def _outcomes(file: Path, value: str, cluster: str) -> list[dict[str, Any]]:
    from evenhand.evaluation.outcome_files import COMPARISONS, is_battles, read_outcomes

    rows = read_outcomes(file, value=value, cluster=cluster)
    if is_battles(rows):
        raise UserError("holds battles", where=str(file), fix=f"`evenhand stats ratings`, or columns {COMPARISONS}")
    if cluster != "cluster" and not any("cluster" in r for r in rows):
        raise UserError(f"no column '{cluster}'", where=str(file), fix=f"it has: {', '.join(k for k in rows[0] if k != 'where')}")
    return rows


def _pairs(rows: Sequence[Mapping[str, Any]], contrasts: Sequence[str], against: str) -> list[tuple[str, str]] | None:
    if contrasts and against:
        raise UserError("give --contrast or --against, not both", where="command line")
    if against:
        return [(arm, against) for arm in dict.fromkeys(str(r["arm"]) for r in rows) if arm != against]
    return [_split(text) for text in contrasts] or None


def _split(text: str) -> tuple[str, str]:
    first, colon, second = text.partition(":")
    if not (first and colon and second):
        raise UserError(f"'{text}' is not A:B", where="--contrast", fix="name two arms with a colon between them")
    return first, second
