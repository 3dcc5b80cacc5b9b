"""`evenhand generate`, `evenhand chat` and `evenhand score`: a model in hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from evenhand.cli.files import refuse_same
from evenhand.cli.models import as_prompt, open_policy, read_prompts
from evenhand.cli.options import Answers, Device, MaxTokens, Temperature
from evenhand.cli.scores import answers_by_source, author, in_file, scorer, where_kept
from evenhand.cli.terminal import Progress, Waiting
from evenhand.data.jsonl import write_groups
from evenhand.display import spelled_out
from evenhand.errors import UserError
from evenhand.seeding import keyed
from evenhand.types import Group, Message, Prompt, Sampling, Scores

if TYPE_CHECKING:
    from evenhand.data.template import Renderer

Model = Annotated[str, typer.Argument(help="A model folder, an arm's folder (DIR/arms/ARM/seed-S), or a Hub name.")]
TopP = Annotated[float, typer.Option(min=0, max=1)]
TopK = Annotated[int, typer.Option(min=0, help="0 is off.")]
MinP = Annotated[float, typer.Option(min=0, max=1, help="Drop tokens below this share of the likeliest's probability; 0 is off.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same answers.")]
Raw = Annotated[bool, typer.Option("--raw", help="Use the text as it is, without the chat template.")]


def generate(
    model: Model,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; may be given several times.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file of prompts: what `run` reads, or .txt, one a line.")] = None,
    n: Answers = 1,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    max_tokens: MaxTokens = 128,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write groups as JSONL here instead of printing.")] = None,
    raw: Raw = False,
    device: Device = "auto",
) -> None:
    """Sample answers from a model."""
    from evenhand.engines.registry import DEFAULT, open_engine

    if not prompt and prompts is None:
        raise UserError("there is nothing to answer", fix="give --prompt TEXT or --prompts FILE")
    policy, renderer = open_policy(model, device)
    asked = [as_prompt(text, renderer, raw=raw) for text in prompt or []]
    asked += read_prompts(prompts, renderer, raw=raw) if prompts else []
    sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, max_tokens=max_tokens, seed=seed)
    groups = open_engine(DEFAULT, policy, renderer).generate(asked, n, sampling, progress=Progress("answered"))
    if out is None:
        _print_groups(groups)
    else:
        write_groups(out, groups)
        print(f"{len(groups)} prompts with {n} answers each: {out}")


def chat(
    model: Model,
    system: Annotated[str, typer.Option(help="A system message.")] = "",
    temperature: Temperature = 0.7,
    top_p: TopP = 0.95,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    max_tokens: MaxTokens = 256,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Talk with a model; an empty line ends it, `/new` starts again."""
    from evenhand.engines.registry import local_engine

    policy, renderer = open_policy(model, device)
    sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, max_tokens=max_tokens, seed=seed)
    speaker = Speaker(local_engine(policy, renderer).stream, renderer, sampling)
    console, begun = Console(), [Message("system", system)] if system else []
    history = begun
    while text := _ask(console):
        if text == "/new":
            history = begun
            continue
        history = [*history, Message("user", text)]
        answer = speaker.say(
            history, lambda piece: console.print(spelled_out(piece), end="", markup=False, highlight=False, soft_wrap=True)
        )
        console.print()
        history = [*history, Message("assistant", answer)]


def score(
    model_or_reward: Annotated[
        str, typer.Argument(help="A reward model, a policy (log-probs), a reward's name (vader), or '{kind: ..., ...}'.")
    ],
    file: Annotated[
        Path,
        typer.Argument(help="Prompts with answers, a finished run's folder, or (with --prompts) a model that answers first."),
    ],
    prompts: Annotated[Path | None, typer.Option(help="What a model answers before it is scored.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write scored groups here as JSONL (a folder, for a run); labels stay.")
    ] = None,
    max_prompt: Annotated[int | None, typer.Option(min=1, help="Prompts keep so many last tokens (default: what fits).")] = None,
    max_completion: Annotated[
        int | None, typer.Option(min=1, help="Answers keep so many first tokens (default: all; too long is an error).")
    ] = None,
    device: Device = "auto",
) -> None:
    """Score answers: by a reward model, by a program, or by a policy's log-prob (nats per answer)."""
    refuse_same(file, out)
    score_all = scorer(model_or_reward, device, max_prompt=max_prompt, max_completion=max_completion)
    sources = answers_by_source(file, prompts, device)
    for name, given in sources.items():
        with Waiting(f"scoring {sum(len(g.completions) for g in given)} answers{f' of {name}' if name else ''}"):
            scored = score_all(given)
        for line in summary(given, scored, model_or_reward):
            print(spelled_out(f"{name}: {line}" if name else line))
        if out is not None:
            path = out / f"{name}.jsonl" if name else out
            write_groups(path, in_file(given, scored, model_or_reward))
            print(spelled_out(f"written: {path}, {where_kept(given, model_or_reward)}"))


def summary(given: Sequence[Group], scored: Sequence[Scores], name: str = "") -> list[str]:
    """Mean and spread of the scores; where the data rank answers, how often the scores of `name` agree.

    Scores that `score --out` wrote rank nothing for their own author, and are called by its name for others.
    """
    values = [v for s in scored for v in s.values if not math.isnan(v)]
    total = sum(len(s.values) for s in scored)
    if not values:
        alone = all(len(g.completions) == 1 for g in given)
        return [f"none of {total} answers could be scored" + alone * " (what compares answers needs two or more to a prompt)"]
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
    lines = [f"{total} answers: mean {mean:.4g}, standard deviation {spread:.4g}, from {min(values):.4g} to {max(values):.4g}"]
    lines += [f"{total - len(values)} could not be scored"] if len(values) < total else []
    by = author(given)
    right, ties, pairs = agreement(given, scored) if by is None or by != name else (0, 0, 0)
    whose = f", as {by} ranks them" if by is not None else ""
    share = f"{(right + ties / 2) / pairs:.1%}, {ties} ties count half" if pairs else ""
    return [*lines, f"agrees with {right} of {pairs} pairs{whose} ({share})"] if pairs else lines


def agreement(given: Sequence[Group], scored: Sequence[Scores]) -> tuple[int, int, int]:
    """(agreeing, tied, all) pairs of answers that the data rank and that could be scored."""
    signs = []
    for group, scores in zip(given, scored, strict=True):
        rows = list(zip(group.scores, scores.values, strict=True))
        signs += [(a[1] - b[1]) for a in rows for b in rows if a[0] > b[0] and not math.isnan(a[1] - b[1])]
    return sum(s > 0 for s in signs), sum(s == 0 for s in signs), len(signs)


def _ask(console: Console) -> str:
    try:
        return console.input("[bold]> [/bold]").strip()
    except (EOFError, KeyboardInterrupt):
        console.print()
        return ""


def _print_groups(groups: Sequence[Group]) -> None:
    console = Console()
    for group in groups:
        console.print(Text(spelled_out(group.prompt.text), style="dim"), soft_wrap=True)
        for completion in group.completions:
            end = f"  [{completion.finish}, {len(completion.tokens or ())} tokens]"
            console.print(Text.assemble(spelled_out(completion.text), (end, "dim")), soft_wrap=True)
        console.print()


@dataclass
class Speaker:
    """Tells an answer's text as soon as it is complete; `stream` gives the tokens (`LocalEngine.stream`).

    Without a chat template the turns are joined as plain text. Every answer has random numbers of its own, keyed by
    (sampling.seed, how many were given before).
    """

    stream: Callable[[Prompt, Sampling], Iterator[int]]
    renderer: Renderer
    sampling: Sampling
    answers: int = 0

    def say(self, history: Sequence[Message], tell: Callable[[str], None]) -> str:
        """The answer to `history`; `tell` gets its pieces."""
        sampling = replace(self.sampling, seed=keyed(self.sampling.seed, "chat", self.answers))
        self.answers += 1
        ids, told = [], ""
        for token in self.stream(self._prompt(history), sampling):
            ids.append(token)
            text = self.renderer.decode(ids)
            if not text.endswith("�"):  # half a character: its other bytes are still to come
                tell(text[len(told) :])
                told = text
        return told

    def _prompt(self, history: Sequence[Message]) -> Prompt:
        chat = self.renderer.tokenizer.chat_template
        return Prompt(content=tuple(history) if chat else "".join(m.content for m in history))
