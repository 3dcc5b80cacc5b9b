"""`evenhand label`: preference pairs from answers, by what any judge says of them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from evenhand.cli.files import refuse_same
from evenhand.cli.judge import open_judge
from evenhand.cli.progress import Progress
from evenhand.display import spelled_out
from evenhand.errors import UserError

if TYPE_CHECKING:
    from evenhand.data.load import Dataset
    from evenhand.judges import Judge
    from evenhand.judges.cache import Cache
    from evenhand.synthesis import Labelled
    from evenhand.types import Group, Prompt, Sampling


SHARES = {"ties": "ties", "invalid": "unusable", "consistency": "same verdict in both orders", "p_first": "prefers the first"}
"""What is told of a judge of pairs."""


class Pairs(StrEnum):
    """Which of a prompt's answers are compared."""

    random = "random"
    best_worst = "best-worst"
    all = "all"


_CHOOSE: dict[Pairs, Literal["random", "best_worst", "all"]] = {
    Pairs.random: "random", Pairs.best_worst: "best_worst", Pairs.all: "all",
}  # fmt: skip


class Label(StrEnum):
    """How a chance becomes a label."""

    hard = "hard"
    soft = "soft"
    drawn = "drawn"


def label(
    file: Annotated[Path, typer.Argument(help="Prompts with two or more answers each, or prompts alone with --answers-by.")],
    out: Annotated[Path, typer.Option(help="The pairs, as JSONL that `run` reads.")],
    by: Annotated[
        str,
        typer.Option("--judge", help="A reward's name, a reward model's folder, or '{kind: llm, model: ..., endpoint: ...}'."),
    ] = "",
    model: Annotated[str, typer.Option(help="A judging model's name at --endpoint; or a folder, without --endpoint.")] = "",
    endpoint: Annotated[str, typer.Option(help="An OpenAI-compatible address that ends in /v1.")] = "",
    template: Annotated[str, typer.Option(help="A built-in judge template, or a YAML file.")] = "helpfulness",
    logprobs: Annotated[bool, typer.Option("--logprobs", help="Read verdicts from log-probs.")] = False,
    max_cost: Annotated[float | None, typer.Option(help="Dollars; checked before a request is sent.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at a time.")] = 8,
    answers_by: Annotated[str, typer.Option(help="Sample the answers from this model first (on-policy pairs).")] = "",
    n: Annotated[int, typer.Option("-n", "--n", min=2, help="Answers per prompt with --answers-by.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer with --answers-by, in tokens.")] = 256,
    max_prompt: Annotated[int | None, typer.Option(min=1, help="Prompts keep their last tokens with --answers-by.")] = None,
    answer_temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature with --answers-by.")] = 1.0,
    chat_template: Annotated[
        str | None, typer.Option(help="plain, transcript, tulu or chatml, for --answers-by a model without one.")
    ] = None,
    pairs: Annotated[Pairs, typer.Option(help="Two at random, the best against the worst, or every two.")] = Pairs.random,
    labels: Annotated[Label, typer.Option(help="hard: 1 and 0; soft: p and 1 - p; drawn: 1 with chance p.")] = Label.hard,
    margin: Annotated[float, typer.Option(min=0, help="Leave out differences up to this (of rewards, else |2p - 1|).")] = 0.0,
    temperature: Annotated[float, typer.Option(help="p = sigmoid(difference of rewards / temperature).")] = 1.0,
    flip: Annotated[float, typer.Option(min=0, max=1, help="Share of labels to swap, for studies of noise.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same pairs.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many prompts.")] = None,
    cache: Annotated[Path | None, typer.Option(help="What was said so far, to go on from (default: OUT.kept).")] = None,
) -> None:
    """Label answers by a program, a reward model or a language model; stopped, it goes on where it was."""
    from evenhand.data.jsonl import write_groups
    from evenhand.judges.cache import Cache
    from evenhand.judges.selftest import refuse_broken
    from evenhand.synthesis import flip_labels
    from evenhand.synthesis import label as labelled_by
    from evenhand.types import Sampling
    from evenhand.worlds.labels import Annotator

    refuse_same(file, out)
    named = {"model": model, "endpoint": endpoint, "template": template, "max_cost": max_cost, "concurrency": concurrency}
    kept = cache or out.with_name(f"{out.name}.kept")
    given = {k: v for k, v in named.items() if v} | ({"verdict": "logprobs"} if logprobs else {})
    judge = open_judge(by, given, kept)
    if answers_by:
        sampling = Sampling(temperature=answer_temperature, max_tokens=max_tokens, seed=seed)
        groups = sampled(loaded(file).prompts[:limit], answers_by, n, sampling, chat_template, max_prompt, Cache(kept))
    else:
        groups = several(loaded(file).groups[:limit], file)
    found = labelled_by(
        groups, with_memory(judge, by, Cache(kept)), choose=_CHOOSE[pairs],
        labels=labels.value, margin=margin, annotator=Annotator(temperature=temperature), seed=seed, progress=Progress("judged"),
    )  # fmt: skip
    refuse_broken(found.verdicts, judge.name)
    for line in summary(groups, found, judge):
        print(spelled_out(line))
    if not found.pairs:
        raise UserError("no pair is left", where=str(file), fix="lower --margin, or give more, and more different, answers")
    write_groups(out, flip_labels(found.pairs, flip, seed=seed) if flip else found.pairs)
    print(f"written: {out} (what the judge said: {kept})")


def loaded(file: Path) -> Dataset:
    """The data of a file, its format said."""
    from evenhand.data.load import load

    data = load(str(file), where=str(file))
    print(data.description)
    return data


def several(groups: list[Group], file: Path) -> list[Group]:
    """The groups, some of which must have answers to compare."""
    if all(len(g.completions) < 2 for g in groups):
        raise UserError("no prompt has two answers", where=str(file), fix="add --answers-by MODEL to sample them")
    return groups


def sampled(
    prompts: list[Prompt], model: str, n: int, sampling: Sampling, template: str | None, max_prompt: int | None, cache: Cache
) -> list[Group]:
    """`n` fresh answers of a model to each prompt; those that are known from before are not sampled again."""
    from evenhand.cli.describe import renderer_of
    from evenhand.cli.models import open_policy
    from evenhand.engines.registry import DEFAULT, open_engine
    from evenhand.synthesis.resume_cache import kept_answers

    policy, _ = open_policy(model)
    renderer = renderer_of(model, template)
    engine = open_engine(DEFAULT, policy, renderer)
    about = {**identity(model), "template": renderer.fingerprint, "max_prompt": max_prompt}
    return kept_answers(
        partial(engine.generate, max_prompt=max_prompt),
        prompts,
        n,
        sampling,
        cache=cache,
        identity=about,
        progress=Progress("answered"),
    )


def with_memory(judge: Judge, name: str, cache: Cache) -> Judge:
    """A reward that keeps its scores as a language model keeps its replies; other judges have a cache of their own."""
    from evenhand.judges import RewardJudge
    from evenhand.synthesis.resume_cache import KeptReward

    if not isinstance(judge, RewardJudge):
        return judge
    reward = KeptReward(judge.reward, cache, identity(name), Progress("scored"))
    return RewardJudge(reward, name=judge.name, tie=judge.tie)


def identity(name: str) -> Mapping[str, Any]:
    """A model or reward by name, with the bytes of a local model's folder."""
    from evenhand.cli.models import model_path
    from evenhand.store.fingerprint import model_fingerprint

    folder = None if name.startswith("{") else model_path(name)
    return {"name": name, "bytes": model_fingerprint(folder) if isinstance(folder, Path) else None}


def summary(groups: list[Group], found: Labelled, judge: Judge) -> list[str]:
    """What came out, what was left out, and how the judge behaved."""
    lines = [f"{len(found.pairs)} pairs from {len(groups)} prompts"]
    lines += [", ".join(f"{count} {reason}" for reason, count in found.left_out.items())] if found.left_out else []
    longer = [_longer(p) for p in found.pairs if p.scores[0] != p.scores[1]]
    if longer:
        lines.append(f"the preferred answer is the longer one in {sum(longer) / len(longer):.1%} (ties half)")
    if found.verdicts:
        shares = {
            "ties": "ties",
            "invalid": "unusable",
            "consistency": "same verdict in both orders",
            "p_first": "prefers the first",
        }
        from evenhand.judges import account

        seen = account(found.verdicts)
        lines.append(
            "judge: " + ", ".join(f"{text} {seen[key]:.1%}" for key, text in shares.items() if seen.get(key) is not None)
        )
    chat = getattr(judge, "chat", None)
    return [*lines, f"{chat.calls} asked, {chat.hits} known already"] if chat is not None else lines


def _longer(pair: Group) -> float:
    better, worse = sorted(range(2), key=lambda i: -pair.scores[i])
    a, b = len(pair.completions[better].text), len(pair.completions[worse].text)
    return 0.5 if a == b else float(a > b)


COMMANDS = (label,)
