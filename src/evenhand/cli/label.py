"""`evenhand label`: preference pairs from answers, by what people say of them on a page, or any judge."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from evenhand.cli.files import refuse_same
from evenhand.cli.judge import open_judge
from evenhand.cli.label_people import PageOptions, by_people
from evenhand.cli.label_sources import Answers, AnswerSampler, identity
from evenhand.cli.options import (
    Again,
    By,
    ClickLog,
    Concurrency,
    Endpoint,
    Guidelines,
    JudgingModel,
    Limit,
    Logprobs,
    MaxCost,
    PeopleForm,
    PeopleForms,
    PerItem,
    Port,
    Template,
)
from evenhand.cli.progress import Progress
from evenhand.display import spelled_out
from evenhand.errors import UserError

if TYPE_CHECKING:
    from evenhand.judges import Judge
    from evenhand.judges.cache import Cache
    from evenhand.synthesis import AnnotatedPairs
    from evenhand.types import Group


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


class LabelForm(StrEnum):
    """How a chance becomes a label."""

    hard = "hard"
    soft = "soft"
    drawn = "drawn"


def label(
    file: Annotated[
        Path, typer.Argument(help="Prompts with two or more answers each, prompts alone with --answers-by, or a run directory.")
    ],
    out: Annotated[Path | None, typer.Option(help="The pairs, as JSONL that `run` reads.")] = None,
    by: By = "",
    model: JudgingModel = "",
    endpoint: Endpoint = "",
    template: Template = "helpfulness",
    logprobs: Logprobs = False,
    max_cost: MaxCost = None,
    concurrency: Concurrency = 8,
    answers_by: Annotated[str, typer.Option(help="Sample the answers from this model first (on-policy pairs).")] = "",
    n: Annotated[int, typer.Option("-n", "--n", min=2, help="Answers per prompt with --answers-by.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer with --answers-by, in tokens.")] = 256,
    max_prompt: Annotated[int | None, typer.Option(min=1, help="Prompts keep their last tokens with --answers-by.")] = None,
    answer_temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature with --answers-by.")] = 1.0,
    chat_template: Annotated[
        str | None, typer.Option(help="plain, transcript, tulu or chatml, for --answers-by a model without one.")
    ] = None,
    form: PeopleForm = PeopleForms.pair,
    guidelines: Guidelines = None,
    people: PerItem = None,
    again: Again = 0.1,
    log: ClickLog = None,
    port: Port = 0,
    pairs: Annotated[Pairs, typer.Option(help="Two at random, the best against the worst, or every two.")] = Pairs.random,
    labels: Annotated[LabelForm, typer.Option(help="hard: 1 and 0; soft: p and 1 - p; drawn: 1 with chance p.")] = LabelForm.hard,
    margin: Annotated[float, typer.Option(min=0, help="Leave out differences up to this (of rewards, else |2p - 1|).")] = 0.0,
    temperature: Annotated[float, typer.Option(help="p = sigmoid(difference of rewards / temperature).")] = 1.0,
    flip: Annotated[float, typer.Option(min=0, max=1, help="Share of labels to swap, for studies of noise.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same pairs.")] = 0,
    limit: Limit = None,
    cache: Annotated[Path | None, typer.Option(help="What was said so far, to go on from (default: OUT.kept).")] = None,
) -> None:
    """Label answers on a page that opens here; or by a program, a reward model or a language model (--judge, --model).

    Stopped, it goes on where it was. Of a run whose judge is `kind: human`, the page asks what the run waits for.
    """
    sampler = AnswerSampler(
        model=answers_by, n=n, max_tokens=max_tokens, seed=seed, temperature=answer_temperature, template=chat_template,
        max_prompt=max_prompt,
    )  # fmt: skip
    answers = Answers(file, limit, sampler if answers_by else None, cache)
    if not (by or model or endpoint):
        page = PageOptions(guidelines=guidelines, people=people, again=again, port=port, log=log)
        by_people(file, out, answers, page, form.value, _CHOOSE[pairs], labels.value, margin, seed)
        return
    from evenhand.data.jsonl import write_groups
    from evenhand.judges.cache import Cache
    from evenhand.judges.selftest import refuse_broken
    from evenhand.synthesis import flip_labels
    from evenhand.synthesis import label as labelled_by
    from evenhand.worlds.labels import Annotator

    if out is None:
        raise UserError("there is nowhere to write the pairs", fix="add --out PAIRS.jsonl")
    refuse_same(file, out)
    named = {"model": model, "endpoint": endpoint, "template": template, "max_cost": max_cost, "concurrency": concurrency}
    kept = cache or out.with_name(f"{out.name}.kept")
    given = {k: v for k, v in named.items() if v} | ({"verdict": "logprobs"} if logprobs else {})
    judge = open_judge(by, given, kept)
    groups = answers.read(kept)
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


def with_memory(judge: Judge, name: str, cache: Cache) -> Judge:
    """A reward that keeps its scores as a language model keeps its replies; other judges have a cache of their own."""
    from evenhand.judges import RewardJudge
    from evenhand.synthesis.resume_cache import KeptReward

    if not isinstance(judge, RewardJudge):
        return judge
    reward = KeptReward(judge.reward, cache, identity(name), Progress("scored"))
    return RewardJudge(reward, name=judge.name, tie=judge.tie)


def summary(groups: list[Group], found: AnnotatedPairs, judge: Judge) -> list[str]:
    """What came out, what was left out, and how the judge behaved."""
    lines = [f"{len(found.pairs)} pairs from {len(groups)} prompts"]
    lines += [", ".join(f"{count} {reason}" for reason, count in found.left_out.items())] if found.left_out else []
    longer = [_longer(p) for p in found.pairs if p.scores[0] != p.scores[1]]
    if longer:
        lines.append(f"the preferred answer is the longer one in {sum(longer) / len(longer):.1%} (ties half)")
    if found.verdicts:
        from evenhand.judges import account

        seen = account(found.verdicts)
        lines.append(
            "judge: " + ", ".join(f"{text} {seen[key]:.1%}" for key, text in SHARES.items() if seen.get(key) is not None)
        )
    chat = getattr(judge, "chat", None)
    return [*lines, f"{chat.calls} asked, {chat.hits} known already"] if chat is not None else lines


def _longer(pair: Group) -> float:
    better, worse = sorted(range(2), key=lambda i: -pair.scores[i])
    a, b = len(pair.completions[better].text), len(pair.completions[worse].text)
    return 0.5 if a == b else float(a > b)


COMMANDS = (label,)
