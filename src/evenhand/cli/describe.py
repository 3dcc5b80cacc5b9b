"""`evenhand data describe`: what files are taken for, what is noteworthy, and a table, CSV and figure of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.display import quantiles, spelled_out
from evenhand.errors import UserError

if TYPE_CHECKING:
    from evenhand.data.describe import Measure
    from evenhand.data.load import Dataset
    from evenhand.data.template import Renderer
    from evenhand.types import Content, Group

Template = Annotated[str | None, typer.Option(help="A chat template by name, for a tokenizer without one.")]
SHOWN = 3
"""Bad rows that are told."""


def describe(
    sources: Annotated[list[str], typer.Argument(help="Files, folders of `datasets`, Hub names, or '{recipe: shp, path: ...}'.")],
    model: Annotated[str | None, typer.Option(help="Count in this model's tokens instead of words.")] = None,
    max_prompt: Annotated[int | None, typer.Option(min=1, help="Cut prompts as a run would, and say how many.")] = None,
    max_completion: Annotated[int | None, typer.Option(min=1, help="Cut answers likewise.")] = None,
    template: Template = None,
    csv: Annotated[Path | None, typer.Option(help="Write every number of every source here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw lengths and pairs of every source: .svg, .png or .pdf.")] = None,
) -> None:
    """The recognised format, lengths, and what is noteworthy: duplicates, equal answers, longer chosen ones, cuts.

    Rows that do not fit are counted and the first are told; a run stops at them unless `on_bad_row: skip`.
    """
    renderer = renderer_of(model, template) if model else None
    rows = []
    for number, source in enumerate(sources):
        if number:
            print()
        data = looked_at(source)
        if data is None:
            continue
        for line in [data.description, *bad_rows(data), *noteworthy(data.groups)]:
            print(spelled_out(line))
        for line in lengths(data.groups, renderer, max_prompt, max_completion):
            print(spelled_out(line))
        rows.append(row_of(source, data, renderer))
    _together(rows, "tokens" if model else "words", csv, plot, many=len(sources) > 1)


def _together(rows: list[dict[str, Any]], unit: str, csv: Path | None, plot: Path | None, *, many: bool) -> None:
    """What is said of all sources: the table of several, a CSV file, a figure."""
    from evenhand.data.describe import as_csv, as_table

    if not rows and (csv or plot):
        raise UserError("no source holds training data", where="data describe", fix="name a file of prompts or answers")
    if many and rows:
        print(f"\n{as_table(rows)}\nlengths: means over pairs (over rows where there are none), in {unit}")
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        csv.write_text(as_csv(rows), encoding="utf-8")
        print(f"written: {csv}")
    if plot is not None:
        from evenhand.report.plots.sources import save

        save(rows, unit, plot)
        print(f"written: {plot}")


def looked_at(source: str) -> Dataset | None:
    """The data of a source with bad rows left out; None, and a line that says why, for a file of another kind."""
    from evenhand.data.load import load
    from evenhand.data.non_training_files import foreign
    from evenhand.data.sniff import guessed

    if source.startswith("{"):
        return load({"on_bad_row": "skip", **_mapping(source)}, where="command line")
    if not Path(source).is_file():
        return load(source, where=source)
    given, note = guessed(Path(source))
    if note:
        print(spelled_out(note))
    try:
        return load({**given, "on_bad_row": "skip"}, where=source)
    except UserError:
        known = foreign(Path(source))
        if known is None:
            raise
        print(f"{Path(source).name}: {known}")
        return None


def _mapping(text: str) -> Mapping[str, Any]:
    from evenhand.configfile.document import parse

    return parse(text, "command line").data


def bad_rows(data: Dataset) -> list[str]:
    """The first rows that do not fit; the description has counted them."""
    told = [f"  bad row: {line}" for line in data.skipped[:SHOWN]]
    more = len(data.skipped) - len(told)
    return [*told, *([f"  and {more} more"] if more else [])]


def lengths(groups: Sequence[Group], renderer: Renderer | None, max_prompt: int | None, max_completion: int | None) -> list[str]:
    """Lengths of prompts and answers: in words, or in tokens with the template and with cuts as in a run."""
    if renderer is None:
        unit, lines = "words", []
        prompts, answers = [words(g.prompt.text) for g in groups], [words(c.text) for g in groups for c in g.completions]
    else:
        done = renderer.tokenise_all(groups, max_prompt=max_prompt, max_completion=max_completion)
        unit, prompts = "tokens", [len(t.prompt) for t in done.groups]
        answers = [len(c.ids) for t in done.groups for c in t.completions]
        lines = [f"{name.replace('_', ' ')}: {count}" for name, count in done.counts.items() if count]
        lines.append(f"left out: {len(done.dropped)}, first: {done.dropped[0][1]}" if done.dropped else "no row is left out")
    return [*lines, f"prompts in {unit}: {quantiles(prompts)}", f"answers in {unit}: {quantiles(answers)}"]


def row_of(source: str, data: Dataset, renderer: Renderer | None) -> dict[str, Any]:
    """The source's line of the table, with who wrote the answers and who compared them where a recipe says so."""
    from evenhand.data.describe import statistics, token_measure

    measure: Measure = _content_words if renderer is None else token_measure(renderer.tokenizer)
    given = _mapping(source) if source.startswith("{") else {}
    name = given.get("recipe") or Path(str(given.get("path", source))).name
    return statistics(name, data.groups, measure=measure) | _authors(given.get("recipe"))


def _authors(name: str | None) -> dict[str, Any]:
    from evenhand.data.recipes import recipe

    said = recipe(name) if name else {}
    return {"completion": said.get("completion"), "annotator": said.get("annotator")}


def _content_words(content: Content) -> int:
    from evenhand.types import content_text

    return words(content_text(content))


def renderer_of(model: str, template: str | None) -> Renderer:
    """The renderer of a model, with a named template only where the tokenizer has none."""
    from evenhand.cli.models import model_path
    from evenhand.stages import common

    return common.renderer_of(model_path(model), template)


def noteworthy(groups: Sequence[Group]) -> list[str]:
    """What data often have and nobody looks at."""
    prompts = {g.prompt.id for g in groups}
    lines = [f"{len(groups)} rows, {len(prompts)} different prompts"]
    ranked = [(g, best, worst) for g in groups for best, worst in [_ends(g)] if best is not None and worst is not None]
    if ranked:
        equal = sum(g.completions[b].text == g.completions[w].text for g, b, w in ranked)
        longer = sum(words(g.completions[b].text) > words(g.completions[w].text) for g, b, w in ranked)
        lines.append(f"the better answer is longer in {longer / len(ranked):.1%}, equal to the worse in {equal} of {len(ranked)}")
    empty = sum(not c.text.strip() for g in groups for c in g.completions)
    return [*lines, f"{empty} answers are empty"] if empty else lines


def _ends(group: Group) -> tuple[int | None, int | None]:
    """Indices of the best and the worst scored answer, or None where none is better."""
    order = sorted((i for i, s in enumerate(group.scores) if s == s), key=lambda i: group.scores[i])  # NaN is unscored
    if not order or group.scores[order[-1]] == group.scores[order[0]]:
        return None, None
    return order[-1], order[0]


def words(text: str) -> int:
    return len(text.split())
