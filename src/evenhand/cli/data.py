"""`evenhand data`: what the model will be shown (`preview`), and a map of prompts (`explore`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenhand.cli.describe import Template, describe, renderer_of
from evenhand.display import spelled_out

if TYPE_CHECKING:
    from evenhand.data.template import Renderer
    from evenhand.types import TokenGroup

Source = Annotated[str, typer.Argument(help="A file, a folder of `datasets`, or a Hub name.")]

app = typer.Typer(name="data", help="Look at data before training on it, and make data.", no_args_is_help=True)
app.command()(describe)


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
    from rich.console import Console

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
