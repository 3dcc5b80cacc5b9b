"""`evenhand data`: what files are taken for (`describe`), what a model is shown (`preview`), a map of prompts (`explore`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from evenhand.cli.files import parsed
from evenhand.cli.models import model_path
from evenhand.display import quantiles, spelled_out
from evenhand.errors import UserError
from evenhand.types import Group, TokenGroup, content_text

if TYPE_CHECKING:
    from evenhand.data.describe import Measure
    from evenhand.data.load import Dataset
    from evenhand.data.template import Renderer

Source = Annotated[str, typer.Argument(help="A file, a folder of `datasets`, or a Hub name.")]
Template = Annotated[str | None, typer.Option(help="A chat template by name, for a tokenizer without one.")]
SHOWN = 3
"""Bad rows that are told."""

app = typer.Typer(name="data", help="Look at data before training on it, and make data.", no_args_is_help=True)


@app.command()
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
        return load({"on_bad_row": "skip", **parsed(source, "command line")}, where="command line")
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

    measure: Measure = (lambda content: words(content_text(content))) if renderer is None else token_measure(renderer.tokenizer)
    given = parsed(source, "command line") if source.startswith("{") else {}
    name = given.get("recipe") or Path(str(given.get("path", source))).name
    return statistics(name, data.groups, measure=measure) | _authors(given.get("recipe"))


def _authors(name: str | None) -> dict[str, Any]:
    from evenhand.data.recipes import recipe

    said = recipe(name) if name else {}
    return {"completion": said.get("completion"), "annotator": said.get("annotator")}


def renderer_of(model: str, template: str | None) -> Renderer:
    """The renderer of a model, with a named template only where the tokenizer has none."""
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


@app.command()
def preview(
    source: Source,
    model: Annotated[str, typer.Option(help="Whose tokenizer and chat template.")],
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Rows to show.")] = 2,
    max_prompt: Annotated[int, typer.Option(min=1)] = 512,
    max_completion: Annotated[int, typer.Option(min=1)] = 512,
    supervise: Annotated[str, typer.Option(help="completion, assistant or full.")] = "completion",
    template: Template = None,
    ids: Annotated[bool, typer.Option("--ids", help="Token ids too; those that are not learned in brackets.")] = False,
) -> None:
    """Rows exactly as the model sees them: the prompt dim, what is learned green, what is not red; `¦` between tokens."""
    from evenhand.data.load import load
    from evenhand.doctor.render import coloured

    groups = load(source, where=source).groups[:n]
    renderer, console = renderer_of(model, template), Console()
    console.print(stops(renderer), style="dim", markup=False, highlight=False, soft_wrap=True)
    for group in groups:
        done = renderer.tokenise_all([group], max_prompt=max_prompt, max_completion=max_completion, supervise=supervise)
        for _, reason in done.dropped:
            console.print(f"left out: {reason}", style="yellow", markup=False)
        for tokens in done.groups:
            if supervise == "completion" and (lost := len(renderer.prompt_ids(group.prompt)) - len(tokens.prompt)):
                console.print(f"the prompt is cut: its first {lost} tokens are lost", style="yellow")
            for line in coloured(tokens, renderer):
                console.print(line, soft_wrap=True)
            for text in numbered(tokens) if ids else ():
                console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)
        console.print()


@app.command()
def explore(
    sources: Annotated[list[str], typer.Argument(help="Files, folders or Hub names.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("prompts.html"),
    topics: Annotated[int, typer.Option(min=1, help="How many topics to look for.")] = 8,
    limit: Annotated[int, typer.Option(min=4, help="Prompts per source at most, evenly spaced.")] = 2000,
) -> None:
    """A map of prompts by source and topic, from their words alone: one page that opens anywhere."""
    from evenhand.data.explore import explore as explored_of
    from evenhand.data.load import load
    from evenhand.report.prompt_map import page

    texts: list[str] = []
    names: list[str] = []
    for source in sources:
        prompts = load(source, where=source).prompts
        kept = prompts[:: max(1, -(-len(prompts) // limit))]
        texts += [p.text for p in kept]
        names += [Path(source).name] * len(kept)
    explored = explored_of(texts, topics=topics)
    out.write_text(page(texts, names, explored), encoding="utf-8")
    for number, words in enumerate(explored.names):
        print(f"{(explored.topic == number).sum():6d}  {spelled_out(', '.join(words))}")
    print(f"{len(texts)} prompts: {out}")


def stops(renderer: Renderer) -> str:
    """The tokens that end an answer; the one that is put behind an answer of a conversation comes first."""
    ordered = sorted(renderer.stop_ids, key=lambda i: (i != renderer.stop_id, i))
    names = [f"{renderer.tokenizer.convert_ids_to_tokens(i)!r} ({i})" for i in ordered]
    return "stop tokens: " + (", ".join(names) or "none")


def numbered(tokens: TokenGroup) -> Iterator[str]:
    """The ids of the prompt and of each answer; those that are not learned in brackets."""
    yield "prompt ids: " + " ".join(map(str, tokens.prompt))
    for c in tokens.completions:
        yield "answer ids: " + " ".join(str(i) if counts else f"({i})" for i, counts in zip(c.ids, c.mask, strict=True))
