"""`evenhand label`: preference pairs from answers, by what people say of them on a page, or any judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evenhand.cli import options
from evenhand.cli.judge import model_options
from evenhand.cli.label_judged import Answers, AnswerSampler, JudgeOptions, LabelForm, PairOptions, Pairs, by_judge
from evenhand.cli.label_people import PageOptions, by_people
from evenhand.errors import UserError
from evenhand.labelling import Form


def label(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="Prompts with two or more answers each, prompts alone with --answers-by, or a run directory.")
    ],
    out: Annotated[Path | None, typer.Option(help="The pairs, as JSONL that `run` reads.")] = None,
    by: options.By = "",
    model: options.JudgingModel = "",
    endpoint: options.Endpoint = "",
    template: options.Template = "helpfulness",
    logprobs: options.Logprobs = False,
    max_cost: options.MaxCost = None,
    concurrency: options.Concurrency = 8,
    answers_by: Annotated[str, typer.Option(help="Sample the answers from this model first (on-policy pairs).")] = "",
    n: Annotated[int, typer.Option("-n", "--n", min=2, help="Answers per prompt with --answers-by.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer with --answers-by, in tokens.")] = 256,
    max_prompt: Annotated[int | None, typer.Option(min=1, help="Prompts keep their last tokens with --answers-by.")] = None,
    answer_temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature with --answers-by.")] = 1.0,
    chat_template: Annotated[
        str | None, typer.Option(help="plain, transcript, tulu or chatml, for --answers-by a model without one.")
    ] = None,
    form: options.PeopleForm = Form.pair,
    guidelines: options.Guidelines = None,
    people: options.PerItem = None,
    again: options.Again = 0.1,
    log: options.ClickLog = None,
    port: options.Port = 0,
    pairs: Annotated[Pairs, typer.Option(help="Two at random, the best against the worst, or every two.")] = Pairs.random,
    labels: Annotated[LabelForm, typer.Option(help="hard: 1 and 0; soft: p and 1 - p; drawn: 1 with chance p.")] = LabelForm.hard,
    margin: Annotated[float, typer.Option(min=0, help="Leave out differences up to this (of rewards, else |2p - 1|).")] = 0.0,
    temperature: Annotated[float, typer.Option(help="p = sigmoid(difference of rewards / temperature).")] = 1.0,
    flip: Annotated[float, typer.Option(min=0, max=1, help="Share of labels to swap, for studies of noise.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same pairs.")] = 0,
    limit: options.Limit = None,
    cache: Annotated[Path | None, typer.Option(help="What was said so far, to go on from (default: OUT.kept).")] = None,
) -> None:
    """Label answers on a page that opens here; or by a program, a reward model or a language model (--judge, --model).

    Stopped, it goes on where it was. Of a run whose judge is `kind: human`, the page asks what the run waits for.
    """
    sampler = AnswerSampler(
        model=answers_by, n=n, max_tokens=max_tokens, seed=seed, temperature=answer_temperature, template=chat_template,
        max_prompt=max_prompt,
    )  # fmt: skip
    judged = bool(by or model or endpoint)
    refuse_unread(context, judged=judged, sampled=bool(answers_by))
    answers = Answers(file, limit, sampler if answers_by else None, cache)
    made = PairOptions(pairs=pairs, labels=labels, margin=margin, seed=seed)
    if not judged:
        page = PageOptions(form=form, guidelines=guidelines, people=people, again=again, port=port, log=log)
        by_people(file, out, answers, page, made)
        return
    settings = model_options(
        logprobs, model=model, endpoint=endpoint, template=template, max_cost=max_cost, concurrency=concurrency
    )
    by_judge(file, out, answers, JudgeOptions(by=by, settings=settings, temperature=temperature, flip=flip), made)


def refuse_unread(context: typer.Context, *, judged: bool, sampled: bool) -> None:
    """UserError for an option that was given and that the way which is taken does not read."""
    ways = (
        (OF_THE_PAGE, not judged, "nobody is asked where a judge labels", "leave it out, or leave out --judge and --model"),
        (OF_A_JUDGE, judged, "people label on the page", "leave it out, or add --judge or --model"),
        (OF_SAMPLING, sampled, "the file's own answers are labelled", "leave it out, or add --answers-by MODEL"),
    )
    for names, read, why, fix in ways:
        for name in names if not read else ():
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                raise UserError("has no effect here", where=f"--{name.replace('_', '-')}", why=why, fix=fix)


OF_THE_PAGE = ("form", "guidelines", "people", "again", "log", "port")
OF_A_JUDGE = ("template", "logprobs", "max_cost", "concurrency", "temperature", "flip")
OF_SAMPLING = ("n", "max_tokens", "max_prompt", "answer_temperature", "chat_template")
