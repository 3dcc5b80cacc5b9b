"""Options that several commands share: one meaning, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evenhand.labelling import Form


def complete_experiment(incomplete: str) -> list[str]:
    """Built-in experiments and YAML files here, for the completion of shells."""
    from evenhand.run_experiment import builtins

    files = [str(p) for p in Path(".").glob("*.y*ml")]
    return [name for name in [*builtins(), *sorted(files)] if name.startswith(incomplete)]


Experiment = Annotated[
    str,
    typer.Argument(
        help="A YAML file, the name of a built-in experiment, or a run directory.", autocompletion=complete_experiment
    ),
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[key.path=value ...]", help="Settings to change.")]
RunDirectory = Annotated[Path | None, typer.Option(help="The run directory (default: runs/, and the file's name).")]
Workers = Annotated[int | None, typer.Option(min=0, help="Nodes at a time; 0 runs them in this process.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Unchecked = Annotated[bool, typer.Option("--unchecked", help="Do not let `doctor` look first.")]
By = Annotated[
    str, typer.Option("--judge", help="A reward's name, a reward model's folder, or '{kind: llm, model: ..., endpoint: ...}'.")
]
JudgingModel = Annotated[str, typer.Option(help="A judging model's name at --endpoint; or a folder, without --endpoint.")]
Endpoint = Annotated[str, typer.Option(help="An OpenAI-compatible address that ends in /v1.")]
Template = Annotated[str, typer.Option(help="A built-in judge template, or a YAML file.")]
Logprobs = Annotated[bool, typer.Option("--logprobs", help="Read verdicts from log-probs.")]
MaxCost = Annotated[float | None, typer.Option(help="Dollars; checked before a request is sent.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests under way at a time.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many prompts.")]
Answers = Annotated[int, typer.Option("-n", "--n", min=1, help="Answers per prompt.")]
Temperature = Annotated[float, typer.Option(min=0, help="0 is greedy.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Leaderboard = Annotated[
    Path | None,
    typer.Option(help="Put arms, tasks or reward models into this file of JSON lines; annotations: AlpacaEval's CSV."),
]
PEOPLE = "On the page, without --judge and --model"
PeopleForm = Annotated[
    Form, typer.Option("--form", help="Pairs, all of a prompt's answers ranked, or each rated 1 to 5.", rich_help_panel=PEOPLE)
]
Guidelines = Annotated[
    Path | None, typer.Option(help="A text that people read first.", exists=True, dir_okay=False, rich_help_panel=PEOPLE)
]
PerItem = Annotated[
    int | None,
    typer.Option(min=0, help="How many label each item (default 1, or as a run's judge asks); 0: all.", rich_help_panel=PEOPLE),
]
Again = Annotated[
    float, typer.Option(min=0, max=1, help="Share of items shown twice to one person, turned round.", rich_help_panel=PEOPLE)
]
ClickLog = Annotated[
    Path | None,
    typer.Option(help="Where every click is kept (default: OUT.labels, or the file a run reads).", rich_help_panel=PEOPLE),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Of the page on this machine's loopback address; 0: a free one.")]
