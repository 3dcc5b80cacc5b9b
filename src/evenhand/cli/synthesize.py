"""`evenhand data revise`, `invent`, `phrase` and `pairs`: data made by machines, from a model's answers or from other data.

Answers of models are kept as they arrive in a file beside the results, so that a command that was stopped goes on where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.cli.label_judged import Pairs, identity, loaded
from evenhand.cli.models import open_policy, read_prompts
from evenhand.cli.options import Concurrency, Endpoint, MaxCost, MaxTokens, Temperature
from evenhand.cli.terminal import Progress
from evenhand.data.jsonl import write_groups, write_rows
from evenhand.errors import UserError
from evenhand.types import Group

if TYPE_CHECKING:
    from evenhand.judges.cache import CachedChat

KEPT = "replies.jsonl"
"""What the model said, in the folder of the results."""
File = Annotated[Path, typer.Argument(help="Any file that `run` reads.")]
Folder = Annotated[Path, typer.Option(help="The folder for the results.")]
Model = Annotated[str, typer.Option(help="A model folder or Hub name; with --endpoint, the model's name there.")]
ChatTemplate = Annotated[str | None, typer.Option(help="plain, transcript, tulu or chatml, for a local model without one.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same data.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many.")]


def revise(
    file: File,
    out: Folder,
    model: Model,
    endpoint: Endpoint = "",
    principles: Annotated[Path | None, typer.Option(help="A YAML list of {name, critique, revision}.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Critiques and revisions of each answer.")] = 1,
    max_chars: Annotated[int | None, typer.Option(min=1, help="Leave out prompts and answers that are longer together.")] = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 1.0,
    chat_template: ChatTemplate = None,
    concurrency: Concurrency = 8,
    max_cost: MaxCost = None,
    seed: Seed = 0,
    limit: Limit = None,
) -> None:
    """A model criticises answers by principles and revises them: demonstrations and preference pairs (Constitutional AI).

    Prompts without an answer are first answered by the model itself.
    """
    from evenhand.data.clean import group_text
    from evenhand.synthesis import chat_asker, critique_and_revise, first_answers
    from evenhand.synthesis import principles as read_principles
    from evenhand.synthesis.constitution import BUILTIN

    chosen = read_principles(principles or BUILTIN)
    given = loaded(file).groups[:limit]
    groups = [g for g in given if max_chars is None or len(group_text(g)) <= max_chars]
    chat = open_chat(model, endpoint, chat_template, out / KEPT, concurrency, max_cost)
    ask = chat_asker(chat, max_tokens=max_tokens, temperature=temperature, seed=seed, progress=Progress("asked"))
    bare = [g.prompt for g in groups if not g.completions]
    answered = [g for g in groups if g.completions] + (first_answers(bare, ask) if bare else [])
    revised = critique_and_revise(answered, ask, chosen, rounds=rounds, seed=seed)
    pairs = [r.pair for r in revised if r.pair is not None]
    print(f"{len(revised)} answers, {len(pairs)} of them changed; {chat.calls} asked, {chat.hits} known already")
    if len(answered) < len(given):
        print(f"left out: {len(given) - len(groups)} too long, {len(groups) - len(answered)} without a first answer")
    write_groups(out / "demonstrations.jsonl", [r.demonstration for r in revised])
    write_groups(out / "pairs.jsonl", pairs)
    write_rows(out / "revisions.jsonl", (r.to_json() for r in revised))
    print(f"written: {out}/demonstrations.jsonl, pairs.jsonl, revisions.jsonl")


def invent(
    file: Annotated[Path, typer.Argument(help="Seed tasks: .txt, one a line, or any file that `run` reads.")],
    out: Folder,
    model: Model,
    count: Annotated[int, typer.Option(min=1, help="New instructions wanted.")],
    endpoint: Endpoint = "",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of eight questions at most.")] = 20,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.7,
    chat_template: ChatTemplate = None,
    concurrency: Concurrency = 8,
    max_cost: MaxCost = None,
    seed: Seed = 0,
) -> None:
    """A model continues lists of tasks; what is new and answerable is kept and answered (Self-Instruct)."""
    from evenhand.synthesis import chat_asker
    from evenhand.synthesis import invent as invented_from

    seeds = [p.text for p in read_prompts(file)]
    chat = open_chat(model, endpoint, chat_template, out / KEPT, concurrency, max_cost)
    ask = chat_asker(chat, max_tokens=max_tokens, temperature=temperature, seed=seed, progress=Progress("asked"))
    made = invented_from(seeds, ask, count=count, seed=seed, rounds=rounds)
    reasons = [r.split(" (")[0] for _, r in made.left_out]
    print(f"{len(made.groups)} new instructions; left out: " + (counted(reasons) or "nothing"))
    print(f"{chat.calls} asked, {chat.hits} known already")
    if not made.groups:
        raise UserError("no new instruction was found", where=model, fix="give more rounds, or a model that follows instructions")
    write_groups(out / "demonstrations.jsonl", made.groups)
    write_rows(out / "left_out.jsonl", ({"instruction": text, "reason": reason} for text, reason in made.left_out))
    print(f"written: {out}/demonstrations.jsonl, left_out.jsonl")


def phrase(
    sources: Annotated[list[str], typer.Argument(metavar="TASK=FILE...", help="A task's name and the file of its rows.")],
    out: Folder,
    tasks: Annotated[Path | None, typer.Option(help="Your own tasks: NAME: {cluster, phrasings: [{question, answer}]}.")] = None,
    per_row: Annotated[int, typer.Option(min=1, help="Phrasings of each row.")] = 1,
    exemplars: Annotated[int, typer.Option(min=0, help="Solved rows above each question; 0 for none.")] = 0,
    hold_out: Annotated[str, typer.Option(help="Kinds of task to hold out, with commas between; or a share of the kinds.")] = "",
    seed: Seed = 0,
    limit: Limit = None,
) -> None:
    """Rows of classic tasks as instructions in many words, split by kind of task (T0, FLAN)."""
    from evenhand.errors import did_you_mean
    from evenhand.synthesis import phrased, split_by_task
    from evenhand.synthesis import tasks as read_tasks
    from evenhand.synthesis.tasks import BUILTIN

    known = read_tasks(tasks or BUILTIN)
    groups: list[Group] = []
    for source in sources:
        name, equals, path = source.partition("=")
        if not equals:
            raise UserError(f"'{source}' is not TASK=FILE", where="command line", fix="for example sentiment=reviews.jsonl")
        if name not in known:
            raise UserError(f"unknown task '{name}'", where=str(tasks or "built-in tasks"), fix=did_you_mean(name, known))
        groups += phrased(known[name], list(_rows(Path(path)))[:limit], seed=seed, exemplars=exemplars, per_row=per_row)
    train, held = split_by_task(groups, _share(hold_out), seed=seed) if hold_out else (groups, [])
    write_groups(out / "demonstrations.jsonl", train)
    if hold_out:
        write_groups(out / "heldout.jsonl", held)
    kinds = counted(str(g.prompt.meta["cluster"]) for g in held)
    print(f"{len(train)} demonstrations, {len(held)} held out" + (f" ({kinds})" if kinds else ""))
    print(f"written: {out}/demonstrations.jsonl" + (", heldout.jsonl" if hold_out else ""))


def pairs(
    file: Annotated[Path, typer.Argument(help="Rankings, ratings or pairs, in any format that `run` reads.")],
    out: Annotated[Path, typer.Option(help="The pairs, as JSONL that `run` reads.")],
    choose: Annotated[Pairs, typer.Option(help="Two at random, the best against the worst, or every two.")] = Pairs.all,
    margin: Annotated[float, typer.Option(min=0, help="Leave out pairs whose scores differ by no more.")] = 0.0,
    per_prompt: Annotated[int | None, typer.Option(min=1, help="At most so many pairs of a prompt, the widest first.")] = None,
    flip: Annotated[float, typer.Option(min=0, max=1, help="Share of labels to swap, for studies of noise.")] = 0.0,
    seed: Seed = 0,
) -> None:
    """Preference pairs from rankings and ratings, by margin; or pairs with some labels swapped."""
    from evenhand.data.convert import at_most_per_prompt, with_margin
    from evenhand.synthesis import flip_labels

    groups = loaded(file).groups
    found = with_margin([p for n, g in enumerate(groups) for p in _pairs_of(g, choose, seed, n)], margin)
    kept = found if per_prompt is None else at_most_per_prompt(found, per_prompt)
    if not kept:
        raise UserError("no pair can be made", where=str(file), why="pairs need two answers with different scores")
    kept = flip_labels(kept, flip, seed=seed) if flip else kept
    swapped = sum(g.parts["flipped"][0] > 0 for g in kept) if flip else 0
    write_groups(out, kept)
    print(f"{len(kept)} pairs from {len(groups)} groups" + (f", {swapped} with swapped labels" if flip else ""))
    print(f"written: {out}")


def _pairs_of(group: Group, choose: Pairs, seed: int, place: int) -> list[Group]:
    from evenhand.data.convert import pairs_of
    from evenhand.seeding import rng

    every = pairs_of(group)  # widest margin first
    if choose is Pairs.all or not every:
        return every
    return every[:1] if choose is Pairs.best_worst else [every[rng(seed, "pairs", place, group.prompt.id).integers(len(every))]]


def open_chat(
    model: str, endpoint: str, template: str | None, kept: Path, concurrency: int, max_cost: float | None
) -> CachedChat:
    """The model that is asked, with what it said before."""
    from evenhand.judges.cache import Cache, CachedChat

    if endpoint:
        from evenhand.judges.config import LLM
        from evenhand.judges.config import endpoint as endpoint_of

        settings = LLM(kind="llm", model=model, endpoint=endpoint, concurrency=concurrency, max_cost=max_cost)
        return CachedChat(endpoint_of(settings), Cache(kept))
    from evenhand.judges.local import LocalChat

    name = "{name} {bytes}".format_map(identity(model))
    return CachedChat(LocalChat(*open_policy(model, template=template), name=name), Cache(kept))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file as they are."""
    from evenhand.data.readers import good_rows

    if not path.is_file():
        raise UserError("there is no such file", where=str(path))
    return (dict(row) for _, row in good_rows(path))


def _share(text: str) -> list[str] | float:
    """A share of the kinds, or their names."""
    try:
        return float(text)
    except ValueError:
        return [name.strip() for name in text.split(",")]


def counted(names: Iterable[str]) -> str:
    """How often each name occurs.

    >>> counted(["a", "b", "a"])
    '2 a, 1 b'
    """
    return ", ".join(f"{n} {name}" for name, n in Counter(names).most_common())
