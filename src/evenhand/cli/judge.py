"""`evenhand judge`: two files of answers, or the arms of a finished run, compared by any judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from evenhand.cli import tables
from evenhand.cli.files import parsed, refuse_unfinished
from evenhand.cli.models import is_model, model_path, nothing_asked, open_policy, sample
from evenhand.cli.options import By, Concurrency, Endpoint, JudgingModel, Limit, Logprobs, MaxCost, Template
from evenhand.cli.scores import scorer
from evenhand.cli.terminal import Progress
from evenhand.display import spelled_out
from evenhand.errors import UserError
from evenhand.store.fingerprint import model_fingerprint
from evenhand.types import Completion, Group, Prompt

if TYPE_CHECKING:
    from evenhand.judges import Judge, Verdict

Side = tuple[str, list[Group]]
"""A name, and its answers."""


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
            metavar="A", help="Answers, a model, a folder of many's answers; without B a run directory, or labelled pairs."
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
    from evenhand.results.finished_run import is_run

    given = model_options(
        logprobs, model=model, endpoint=endpoint, template=template, max_cost=max_cost, concurrency=concurrency,
        requests_per_minute=requests_per_minute, revision=revision, orders="" if orders is Orders.both else orders.value,
        price=parsed(price, "--price") if price else None,
    )  # fmt: skip
    if orders is Orders.one and form is not FileForm.evenhand and form is not FileForm.alpaca_eval:
        raise UserError(f"{form.value} files hold both orders of every pair", where="--orders", fix="leave --orders one out")
    refuse_unfinished(a)
    at = Judging(open_judge(by, given, cache or out / "judge-cache.jsonl"), out, self_test, limit)
    if b is not None:
        files = answer_files(a, b)
        sides = [answers_of(side, prompts, max_tokens, temperature, limit) for side in (*(files or [a]), b)]
        at.models(sides[:-1], sides[-1]) if files else at.sides(sides[0], sides[1], f"{a.name} and {b.name}", form.value)
    elif is_run(a):
        at.run(a)
    elif a.is_file():
        at.labels(a)
    else:
        what = "is not a run directory" if a.is_dir() else "there is no such file or folder"
        fix = "give a second side to compare with, a run directory, or a file of labelled pairs"
        raise UserError(what, where=str(a), fix=fix)


def answer_files(folder: Path, baseline: Path) -> list[Path]:
    """The files of answers in a folder of several models' answers, but the baseline's own; empty for anything else."""
    from evenhand.evaluation.answers import holds_answers
    from evenhand.results.finished_run import is_run

    if not folder.is_dir() or holds_answers(folder) or is_model(folder) or is_run(folder):
        return []
    found = (p for suffix in ("*.json", "*.jsonl") for p in folder.glob(suffix))
    return sorted(p for p in found if p.resolve() != baseline.resolve())


def answers_of(side: Path, prompts: Path | None, max_tokens: int, temperature: float, limit: int | None) -> Side:
    """(name, groups): a file's answers, or a model's answers to `prompts`."""
    from evenhand.evaluation.answers import holds_answers, read_answers

    if holds_answers(side):
        name, groups = read_answers(side, prompts)
        if any(not g.prompt.text.strip() for g in groups):
            raise UserError("the questions are not in the file", where=str(side), fix="add --prompts question.jsonl")
        return name, groups
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


def model_options(logprobs: bool, **named: Any) -> dict[str, Any]:
    """The options of a judging model that are given."""
    return {name: value for name, value in named.items() if value} | ({"verdict": "logprobs"} if logprobs else {})


MODELS = ("llm", "local", "preference_model")
REACHED = ("endpoint", "max_cost", "concurrency", "price", "requests_per_minute", "revision")
"""Options of a model behind an endpoint."""


def open_judge(by: str | Mapping[str, Any], given: Mapping[str, Any], cache: Path) -> Judge:
    """The judge that the options mean; options of a language model with a reward are a mistake and said."""
    spec = dict(by if isinstance(by, Mapping) else parsed(by, "--judge") if by.startswith("{") else {})
    if not by and given.get("model"):
        spec = {"kind": "llm" if "endpoint" in given else "local"}
    if spec.get("kind") == "jury":
        return _jury(spec, given, cache)
    if spec.get("kind") == "human":
        return _people(spec)
    if spec.get("kind") in MODELS:
        named = {k: v for k, v in given.items() if k != "template" or v != "helpfulness" or "template" not in spec}
        return _language_model({**named, **spec}, cache)
    if not by:
        raise UserError("no judge is named", fix="--judge vader, --judge FOLDER, or --model NAME --endpoint http://.../v1")
    asked = {k: v for k, v in given.items() if (k, v) != ("template", "helpfulness") and k != "concurrency"}
    if asked:
        name = min(asked).replace("_", "-")
        raise UserError(f"'{by}' is a reward, and --{name} is for language models", where="command line", fix="leave it out")
    from evenhand.judges import RewardJudge

    return RewardJudge(scorer(str(by), "auto"), name=str(by))


def _people(spec: Mapping[str, Any]) -> Judge:
    from evenhand.configfile.schema import from_json
    from evenhand.judges.config import Human
    from evenhand.judges.human import HumanJudge

    settings = from_json(Human, spec)
    return HumanJudge(Path(settings.labels).expanduser(), settings.annotators)


def _jury(spec: Mapping[str, Any], given: Mapping[str, Any], cache: Path) -> Judge:
    """Several judges as one: each a language model's settings, a reward's name or a reward model's folder."""
    from evenhand.judges.jury import Jury, Rule

    members, by = spec.get("judges"), spec.get("by", "majority")
    if not isinstance(members, Mapping) or len(members) < 2 or by not in get_args(Rule):
        example = "--judge '{kind: jury, by: majority, judges: {a: {kind: llm, ...}, b: {reward: vader}}}'"
        raise UserError("a jury needs two judges or more by name, and `by: majority` or `by: mean`", where="--judge", fix=example)
    shared = {k: v for k, v in given.items() if k in ("max_cost", "concurrency", "price", "requests_per_minute")}
    opened = {}
    for name, member in members.items():
        own = member["reward"] if isinstance(member, Mapping) and "reward" in member else member
        asked = isinstance(own, Mapping) and own.get("kind") in MODELS
        opened[str(name)] = open_judge(own if isinstance(own, Mapping) else str(own), shared if asked else {}, cache)
    return Jury(opened, by=by)


def _language_model(spec: dict[str, Any], cache: Path) -> Judge:
    from evenhand.configfile.schema import from_json
    from evenhand.judges.config import LLM, LocalLLM, PreferenceModel, build

    if spec["kind"] == "llm":
        return build(from_json(LLM, spec), cache=cache)
    spec = {"path" if k == "model" else k: v for k, v in spec.items() if k not in REACHED}
    if spec["kind"] == "preference_model" and spec.get("template") == "helpfulness":
        del spec["template"]
    settings = from_json(LocalLLM, spec) if spec["kind"] == "local" else from_json(PreferenceModel, spec)
    opened, folder = open_policy(settings.path), Path(model_path(settings.path))
    return build(settings, cache=cache, opened=opened, weights=model_fingerprint(folder) if folder.is_dir() else "")


@dataclass(frozen=True, slots=True)
class Judging:
    """A judge at work: it is tested with the first `tested` prompts, judges `limit` of them, and its verdicts go to `out`."""

    judge: Judge
    out: Path
    tested: int
    limit: int | None

    def sides(self, a: Side, b: Side, where: str, form: str) -> None:
        """Two sides; the verdicts also in another tool's form."""
        from evenhand.evaluation import judging
        from evenhand.evaluation.answers import matched

        names, pairs = {"a": a[0], "b": b[0]}, matched(a[1], b[1], where)[: self.limit]
        test = self.self_test([(p.prompt, p.b) for p in pairs], programs=True)
        verdicts = self.judge(pairs, Progress("judged"))
        paths = judging.write(self.out, pairs, verdicts, self.judge, names, form)
        self.refuse_broken(verdicts)
        found = {**names, "judge": self.judge.name, "revision": self.judge.revision, **judging.summary(pairs, verdicts)}
        found |= test | judging.told_by_votes(verdicts, self.judge)
        self.finish(found, tables.side_lines(found), *paths)

    def models(self, models: Sequence[Side], baseline: Side) -> None:
        """Several models against one baseline, as a leaderboard."""
        from evenhand.evaluation.answers import matched
        from evenhand.evaluation.judging import record
        from evenhand.evaluation.leaderboard import leaderboard

        name, theirs = baseline
        pairs = {model: matched(groups, theirs, f"{model} and {name}")[: self.limit] for model, groups in models}
        if len(pairs) < len(models):
            raise UserError("two files are of one model", where="A", fix="one file of answers per model")
        test = self.self_test([(p.prompt, p.b) for p in next(iter(pairs.values()))], programs=True)
        verdicts = {model: self.judge(own, Progress("judged")) for model, own in pairs.items()}
        rows = [record(c, v, self.judge, m, name) for m, own in pairs.items() for c, v in zip(own, verdicts[m], strict=True)]
        kept = self.keep("verdicts", rows)
        for model, own in verdicts.items():
            self.refuse_broken(own, f" on {model}")
        board = leaderboard({m: (pairs[m], verdicts[m]) for m in pairs}, name)
        found = {"baseline": name, "judge": self.judge.name, "models": board, **test}
        self.finish(found, tables.model_lines(board), kept, self.keep("leaderboard", board))

    def labels(self, path: Path) -> None:
        """Pairs whose better answer is known."""
        from evenhand.evaluation.agreement import agreement, better_and_worse, labelled
        from evenhand.evaluation.judging import record, told_by_votes

        labels = labelled(path)[: self.limit]
        pairs = [better_and_worse(p.group) for p in labels]
        test = self.self_test([(c.prompt, c.a) for c in pairs])
        found, verdicts = agreement(labels, self.judge, Progress("judged"))
        found = {"pairs": path.name, "judge": self.judge.name, "revision": self.judge.revision, **found, **test}
        found |= told_by_votes(verdicts, self.judge)
        rows = [record(c, v, self.judge, "better", "worse") for c, v in zip(pairs, verdicts, strict=True)]
        kept = self.keep("verdicts", rows)
        self.refuse_broken(verdicts)
        self.finish(found, tables.label_lines(found), kept)

    def run(self, folder: Path) -> None:
        """Every arm of a finished run against its baseline."""
        from evenhand.evaluation.judging import judge_run
        from evenhand.results.finished_run import open_run

        run = open_run(folder)
        first = next(iter(run.answers[run.baseline].values()))
        test = self.self_test([(g.prompt, g.completions[0]) for g in first])
        found, records, verdicts = judge_run(run.answers, run.baseline, self.judge, Progress("judged"), self.limit)
        kept = self.keep("verdicts", records)
        self.refuse_broken(verdicts)
        self.finish(found | test, [*tables.comparison_lines(found), *tables.behaviour_lines(found["judge"])], kept)

    def self_test(self, answers: Sequence[tuple[Prompt, Completion]], *, programs: bool = False) -> dict[str, Any]:
        """The judge's self-test; UserError, before anything is judged or any number shown, when it fails.

        A program that scores the same text differently is refused. Otherwise it may like shuffled words (a judge of tone does),
        and is warned about on two sides only: labels show what it is worth, and in a run it may find every answer alike.
        """
        from evenhand.judges import LLMJudge
        from evenhand.judges.jury import jurors, single
        from evenhand.judges.selftest import refuse_failed, self_test

        members = jurors(self.judge)
        asked = {name for name, one in members.items() if isinstance(single(one), LLMJudge)}
        if not answers[: self.tested]:
            return {}
        found = self_test(self.judge, answers[: self.tested])
        tests = found.get("members", {"": found})
        for name, one in members.items():
            if name in asked or tests.get(name, {}).get("broken"):
                refuse_failed(tests.get(name, found), one.name)
        if not (programs or asked):
            return {}
        if found["passed"] is False:
            print(f"self-test FAILED: {found['failed']}")
        return {"self_test": found}

    def keep(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Rows in a file of their own; returns its path."""
        from evenhand.evaluation.readers import write_jsonl

        write_jsonl(path := self.out / f"{name}.jsonl", rows)
        return path

    def refuse_broken(self, verdicts: Sequence[Verdict], on: str = "") -> None:
        from evenhand.judges.selftest import refuse_broken

        refuse_broken(verdicts, f"{self.judge.name}{on}")

    def finish(self, found: Mapping[str, Any], lines: Sequence[str], *kept: Path) -> None:
        """Writes the summary, and says it with what the judge took."""
        paths = [*kept, tables.written(self.out / "summary.json", {**found, **tables.spent(self.judge)})]
        for line in [*lines, *tables.call_lines(self.judge), f"written: {', '.join(map(str, paths))}"]:
            print(spelled_out(line))
