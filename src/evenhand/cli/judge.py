"""`evenhand judge`: two files of answers, or the arms of a finished run, compared by any judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.cli.judge_lines import behaviour_lines, call_lines, people_lines, side_lines, spent
from evenhand.cli.options import By, Concurrency, Endpoint, JudgingModel, Limit, Logprobs, MaxCost, Template
from evenhand.cli.progress import Progress
from evenhand.display import spelled_out
from evenhand.errors import UserError

if TYPE_CHECKING:
    from evenhand.judges import Judge
    from evenhand.types import Completion, Group, Prompt


class FileForm(StrEnum):
    """Which tool shall be able to read the verdicts."""

    evenhand = "evenhand"
    alpaca_eval = "alpaca_eval"
    arena_hard = "arena_hard"
    mt_bench = "mt_bench"


class Orders(StrEnum):
    """How often each pair is asked."""

    both = "both"
    one = "one"


def judge(
    a: Annotated[
        Path,
        typer.Argument(
            metavar="A",
            help="Answers, a model, a folder of many's answers; without B a run directory, or labelled pairs.",
        ),
    ],
    b: Annotated[
        Path | None, typer.Argument(metavar="[B]", help="The baseline: its answers to the same prompts, or a model.")
    ] = None,
    by: By = "",
    model: JudgingModel = "",
    endpoint: Endpoint = "",
    template: Template = "helpfulness",
    logprobs: Logprobs = False,
    max_cost: MaxCost = None,
    price: Annotated[str, typer.Option(help="Dollars per million tokens: '{input: 1, output: 2}'.")] = "",
    cache: Annotated[Path | None, typer.Option(help="A file of judgements to re-use (default: OUT/judge-cache.jsonl).")] = None,
    concurrency: Concurrency = 8,
    requests_per_minute: Annotated[float | None, typer.Option(min=0.01, help="At most so many requests a minute.")] = None,
    revision: Annotated[str, typer.Option(help="Tells apart models that a server gives one name.")] = "",
    orders: Annotated[
        Orders, typer.Option(help="one: ask each pair once; position bias can then not be measured.")
    ] = Orders.both,
    prompts: Annotated[Path | None, typer.Option(help="What models answer first; MT-Bench's questions for its answers.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer of a model.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="Of a model that answers first.")] = 1.0,
    self_test: Annotated[int, typer.Option(min=0, help="Prompts of the judge's self-test; 0 leaves it out.")] = 20,
    limit: Limit = None,
    form: Annotated[FileForm, typer.Option("--format", help="Also write verdicts as this tool reads them.")] = FileForm.evenhand,
    out: Annotated[Path, typer.Option(help="Where verdicts.jsonl and summary.json go.")] = Path("judged"),
) -> None:
    """Compare answers by a program, a reward model or a language model; say how far the judge can be trusted."""
    from evenhand.cli.files import refuse_unfinished
    from evenhand.results.finished_run import is_run

    named = {
        "model": model, "endpoint": endpoint, "template": template, "max_cost": max_cost, "concurrency": concurrency,
        "requests_per_minute": requests_per_minute, "revision": revision, "orders": "" if orders is Orders.both else orders.value,
    }  # fmt: skip
    given = {k: v for k, v in named.items() if v} | ({"verdict": "logprobs"} if logprobs else {}) | _price(price)
    if orders is Orders.one and form is not FileForm.evenhand and form is not FileForm.alpaca_eval:
        raise UserError(f"{form.value} files hold both orders of every pair", where="--orders", fix="leave --orders one out")
    refuse_unfinished(a)
    opened = open_judge(by, given, cache or out / "judge-cache.jsonl")
    if b is not None and (files := answer_files(a, b)):
        models = [answers_of(side, prompts, max_tokens, temperature, limit) for side in files]
        _judge_many(models, answers_of(b, prompts, max_tokens, temperature, limit), opened, out, self_test, limit)
    elif b is not None:
        sides = [answers_of(side, prompts, max_tokens, temperature, limit) for side in (a, b)]
        _judge_sides(sides, f"{a.name} and {b.name}", opened, out, self_test, limit, form.value)
    elif is_run(a):
        _judge_run(a, opened, out, self_test, limit)
    elif not a.is_file():
        what = "is not a run directory" if a.is_dir() else "there is no such file or folder"
        raise UserError(
            what, where=str(a), fix="give a second side to compare with, a run directory, or a file of labelled pairs"
        )
    else:
        _judge_labels(a, opened, out, self_test, limit)


def answer_files(folder: Path, baseline: Path) -> list[Path]:
    """The files of answers in a folder of several models' answers, but the baseline's own; empty for anything else."""
    from evenhand.cli.sampling import is_model
    from evenhand.evaluation.answers import holds_answers
    from evenhand.results.finished_run import is_run

    if not folder.is_dir() or holds_answers(folder) or is_model(folder) or is_run(folder):
        return []
    found = (p for suffix in ("*.json", "*.jsonl") for p in folder.glob(suffix))
    return sorted(p for p in found if p.resolve() != baseline.resolve())


def answers_of(
    side: Path, prompts: Path | None, max_tokens: int, temperature: float, limit: int | None
) -> tuple[str, list[Group]]:
    """(name, groups): a file's answers, or a model's answers to `prompts`."""
    from evenhand.evaluation.answers import holds_answers, read_answers

    if holds_answers(side):
        name, groups = read_answers(side, prompts)
        if any(not g.prompt.text.strip() for g in groups):
            raise UserError("the questions are not in the file", where=str(side), fix="add --prompts question.jsonl")
        return name, groups
    from evenhand.cli.sampling import is_model, nothing_asked, sample
    from evenhand.results.finished_run import is_run

    if is_run(side):
        raise UserError(
            "is a run directory", where=str(side), fix="judge it alone: `evenhand judge RUN`, or name an arm's folder"
        )
    if not is_model(side):
        raise UserError(
            "there is no such file or model", where=str(side), fix="a file of answers, a model folder, or a run alone"
        )
    if prompts is None:
        raise nothing_asked(side)
    return side.name, sample(str(side), prompts, max_tokens=max_tokens, temperature=temperature, limit=limit)


def open_judge(by: str, given: Mapping[str, Any], cache: Path) -> Judge:
    """The judge that the options mean; options of a language model with a reward are a mistake and said."""
    from evenhand.configfile.document import parse
    from evenhand.judges import RewardJudge

    spec = dict(parse(by, "--judge").data) if by.startswith("{") else {}
    if spec.get("kind") == "jury":
        return _jury(spec, given, cache)
    if spec.get("kind") == "human":
        return _people(spec)
    if not by and given.get("model"):
        spec = {"kind": "llm" if "endpoint" in given else "local"}
    if spec.get("kind") in ("llm", "local", "preference_model"):
        named = {k: v for k, v in given.items() if k != "template" or v != "helpfulness" or "template" not in spec}
        return _language_model({**named, **spec}, cache)
    if not by:
        raise UserError("no judge is named", fix="--judge vader, --judge FOLDER, or --model NAME --endpoint http://.../v1")
    asked = {k: v for k, v in given.items() if (k, v) != ("template", "helpfulness") and k != "concurrency"}
    if asked:
        name = min(asked).replace("_", "-")
        raise UserError(f"'{by}' is a reward, and --{name} is for language models", where="command line", fix="leave it out")
    from evenhand.cli.scores import scorer

    return RewardJudge(scorer(by, "auto"), name=by)


def _people(spec: Mapping[str, Any]) -> Judge:
    from evenhand.configfile.document import Document
    from evenhand.configfile.schema import check
    from evenhand.judges.config import Human
    from evenhand.judges.human import HumanJudge

    settings: Human = check(Human, Document(dict(spec)))
    return HumanJudge(Path(settings.labels).expanduser(), settings.annotators)


def _jury(spec: Mapping[str, Any], given: Mapping[str, Any], cache: Path) -> Judge:
    """Several judges as one: each a language model's settings, a reward's name or a reward model's folder."""
    from typing import get_args

    from evenhand.judges.jury import Jury, Rule

    members, by = spec.get("judges"), spec.get("by", "majority")
    if not isinstance(members, Mapping) or len(members) < 2 or by not in get_args(Rule):
        example = "--judge '{kind: jury, by: majority, judges: {a: {kind: llm, ...}, b: {reward: vader}}}'"
        raise UserError("a jury needs two judges or more by name, and `by: majority` or `by: mean`", where="--judge", fix=example)
    spelt = {n: str(m["reward"]) if isinstance(m, Mapping) and "reward" in m else m for n, m in members.items()}
    shared = {k: v for k, v in given.items() if k in ("max_cost", "concurrency", "price", "requests_per_minute")}
    opened = {
        str(name): _language_model({**shared, **member}, cache)
        if isinstance(member, Mapping) and member.get("kind") in ("llm", "local", "preference_model")
        else _people(member)
        if isinstance(member, Mapping) and member.get("kind") == "human"
        else open_judge(str(member), {}, cache)
        for name, member in spelt.items()
    }
    return Jury(opened, by=by)


def _language_model(spec: dict[str, Any], cache: Path) -> Judge:
    from evenhand.configfile.document import Document
    from evenhand.configfile.schema import check
    from evenhand.judges.config import LLM, LocalLLM, PreferenceModel, Settings, build

    kind = {"llm": LLM, "local": LocalLLM, "preference_model": PreferenceModel}[spec["kind"]]
    if kind is not LLM:
        reached = ("endpoint", "max_cost", "concurrency", "price", "requests_per_minute", "revision")
        spec = {k: v for k, v in spec.items() if k not in reached}
        if "model" in spec:
            spec["path"] = spec.pop("model")
    if kind is PreferenceModel and spec.get("template") == "helpfulness":
        del spec["template"]
    settings: Settings = check(kind, Document(spec))
    if isinstance(settings, LLM):
        return build(settings, cache=cache)
    from evenhand.cli.models import model_path, open_policy
    from evenhand.store.fingerprint import model_fingerprint

    policy, renderer = open_policy(settings.path)
    folder = Path(model_path(str(settings.path)))
    weights = model_fingerprint(folder) if folder.is_dir() else ""
    settings = replace(settings, path=str(settings.path))
    return build(settings, cache=cache, opened=(policy, renderer), weights=weights)


def _judge_sides(
    sides: Sequence[tuple[str, list[Group]]], where: str, judge: Judge, out: Path, tested: int, limit: int | None, form: str
) -> None:
    from evenhand.cli.tables import written
    from evenhand.evaluation import judging
    from evenhand.evaluation.answers import matched
    from evenhand.judges.selftest import refuse_broken

    (name_a, ours), (name_b, theirs) = sides
    pairs = matched(ours, theirs, where)[:limit]
    test = _tested(judge, [(p.prompt, p.b) for p in pairs[:tested]], programs=True)
    verdicts = judge(pairs, Progress("judged"))
    found = {"a": name_a, "b": name_b, "judge": judge.name, "revision": judge.revision, **judging.summary(pairs, verdicts)}
    found |= ({"self_test": test} if test else {}) | spent(judge) | judging.told_by_votes(verdicts, judge)
    paths = judging.write(out, pairs, verdicts, judge, {"a": name_a, "b": name_b}, form)
    refuse_broken(verdicts, judge.name)
    paths.append(written(out / "summary.json", found))
    for line in side_lines(found, judge):
        print(spelled_out(line))
    print("written: " + ", ".join(map(str, paths)))


def _judge_many(
    models: Sequence[tuple[str, list[Group]]], baseline: tuple[str, list[Group]], judge: Judge, out: Path, tested: int,
    limit: int | None,
) -> None:  # fmt: skip
    from evenhand.cli.tables import model_lines, written
    from evenhand.evaluation.answers import matched
    from evenhand.evaluation.judging import record
    from evenhand.evaluation.leaderboard import leaderboard
    from evenhand.evaluation.readers import write_jsonl
    from evenhand.judges.selftest import refuse_broken

    name, theirs = baseline
    pairs = {model: matched(groups, theirs, f"{model} and {name}")[:limit] for model, groups in models}
    if len(pairs) < len(models):
        raise UserError("two files are of one model", where="A", fix="one file of answers per model")
    test = _tested(judge, [(p.prompt, p.b) for p in next(iter(pairs.values()))[:tested]], programs=True)
    verdicts = {model: judge(own, Progress("judged")) for model, own in pairs.items()}
    rows = [record(c, v, judge, m, name) for m, own in pairs.items() for c, v in zip(own, verdicts[m], strict=True)]
    write_jsonl(out / "verdicts.jsonl", rows)
    for model, own in verdicts.items():
        refuse_broken(own, f"{judge.name} on {model}")
    board = leaderboard({m: (pairs[m], verdicts[m]) for m in pairs}, name)
    write_jsonl(out / "leaderboard.jsonl", board)
    found = {"baseline": name, "judge": judge.name, "models": board, **spent(judge)} | ({"self_test": test} if test else {})
    for line in [*model_lines(board), *call_lines(judge)]:
        print(spelled_out(line))
    print(f"written: {out / 'verdicts.jsonl'}, {out / 'leaderboard.jsonl'}, {written(out / 'summary.json', found)}")


def _tested(judge: Judge, answers: Sequence[tuple[Prompt, Completion]], *, programs: bool = False) -> dict[str, Any] | None:
    """The judge's self-test; UserError, before anything is judged or any number shown, when it fails.

    A program is tested on two sides only: labels show what it is worth, and in a run it may find every answer alike. It may like
    shuffled words (a judge of tone does) and is then warned about; one that scores the same text differently is refused.
    """
    from evenhand.judges import LLMJudge
    from evenhand.judges.jury import jurors, single
    from evenhand.judges.selftest import refuse_failed, self_test

    if not answers or not (programs or any(isinstance(single(one), LLMJudge) for one in jurors(judge).values())):
        return None
    found = self_test(judge, answers)
    tests = found.get("members", {"": found})
    for name, one in jurors(judge).items():
        if isinstance(single(one), LLMJudge) or tests.get(name, {}).get("broken"):
            refuse_failed(tests.get(name, found), one.name)
    if found["passed"] is False:
        print(f"self-test FAILED: {found['failed']}")
    return found


def _judge_labels(path: Path, judge: Judge, out: Path, tested: int, limit: int | None) -> None:
    from evenhand.cli.tables import written
    from evenhand.evaluation.agreement import agreement, better_and_worse, labelled
    from evenhand.evaluation.judging import record, told_by_votes
    from evenhand.evaluation.readers import write_jsonl
    from evenhand.judges.selftest import refuse_broken

    labels = labelled(path)[:limit]
    groups = [p.group for p in labels]
    test = _tested(judge, [(c.prompt, c.a) for c in map(better_and_worse, groups[:tested])])
    found, verdicts = agreement(labels, judge, Progress("judged"))
    found = {"pairs": path.name, "judge": judge.name, "revision": judge.revision, **found, **spent(judge)}
    found |= ({"self_test": test} if test else {}) | told_by_votes(verdicts, judge)
    pairs = zip(groups, verdicts, strict=True)
    write_jsonl(out / "verdicts.jsonl", [record(better_and_worse(g), v, judge, "better", "worse") for g, v in pairs])
    refuse_broken(verdicts, judge.name)
    low, high = found["ci95"]
    print(f"agrees with {found['agreement']:.1%} of {found['n']} labels (95% interval {low:.1%} to {high:.1%})")
    for name, row in found.get("categories", {}).items():
        print(f"  {spelled_out(name)}: {row['agreement']:.1%} of {row['n']}")
    for name, share in found.get("sections", {}).items():
        low, high = found["sections_ci95"][name]
        print(f"  RewardBench {name}: {share:.1%} ({low:.1%} to {high:.1%})")
    for line in [*people_lines(found), *behaviour_lines(found), *call_lines(judge)]:
        print(spelled_out(line))
    print(f"written: {out / 'verdicts.jsonl'}, {written(out / 'summary.json', found)}")


def _judge_run(folder: Path, judge: Judge, out: Path, tested: int, limit: int | None) -> None:
    from evenhand.cli.tables import comparison_lines, written
    from evenhand.evaluation.judging import judge_run
    from evenhand.evaluation.readers import write_jsonl
    from evenhand.judges.selftest import refuse_broken
    from evenhand.results.finished_run import open_run

    run = open_run(folder)
    first = next(iter(run.answers[run.baseline].values()))
    test = _tested(judge, [(g.prompt, g.completions[0]) for g in first[:tested]])
    found, records, verdicts = judge_run(run.answers, run.baseline, judge, Progress("judged"), limit)
    found |= spent(judge) | ({"self_test": test} if test else {})
    out.mkdir(parents=True, exist_ok=True)
    write_jsonl(out / "verdicts.jsonl", records)
    refuse_broken(verdicts, judge.name)
    for line in [*comparison_lines(found), *behaviour_lines(found["judge"]), *call_lines(judge)]:
        print(spelled_out(line))
    print(f"written: {out / 'verdicts.jsonl'}, {written(out / 'summary.json', found)}")


def _price(text: str) -> dict[str, Any]:
    from evenhand.configfile.document import parse

    return {"price": parse(text, "--price").data} if text else {}


COMMANDS = (judge,)
