"""`evenhand evaluate`: models, files of answers, verdicts or outcomes, and finished runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from evenhand.cli import tables
from evenhand.cli.files import refuse_unfinished
from evenhand.cli.models import is_reward_model, model_path, open_policy, read_prompts
from evenhand.cli.options import Answers, Device, Leaderboard, MaxTokens, Temperature
from evenhand.cli.scores import scorer
from evenhand.cli.terminal import Progress
from evenhand.errors import UserError
from evenhand.types import Sampling

FILES = (".json", ".jsonl", ".csv", ".tsv", ".gz")


def evaluate(
    target: Annotated[
        str, typer.Argument(help="A run directory, a model, a reward, or a file of answers, outcomes or judgements.")
    ],
    pairs: Annotated[Path | None, typer.Option(help="Pairs for a reward model; or RewardBench 2, RM-Bench, JudgeBench.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="More rewards for the same pairs, or to choose among a file's answers; 'dpo:POLICY:REFERENCE:BETA'."),
    ] = None,
    category: Annotated[
        str, typer.Option(help="The column that names a pair's category (default: subset, category, source).")
    ] = "",
    probes: Annotated[bool, typer.Option("--probes/--no-probes", help="Try changes that must not raise a score.")] = True,
    tasks: Annotated[str, typer.Option(help="lm-evaluation-harness tasks, separated by commas.")] = "",
    include: Annotated[Path | None, typer.Option(help="A folder of own harness tasks.")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="Examples in the prompt (default: the literature's).")] = None,
    chat_template: Annotated[bool, typer.Option("--chat-template", help="Ask harness tasks through the chat template.")] = False,
    allow_code_execution: Annotated[
        bool, typer.Option("--allow-code-execution", help="Let harness tasks run what a model wrote.")
    ] = False,
    prompts: Annotated[Path | None, typer.Option(help="Prompts for a policy to answer (default: safe and unsafe pairs).")] = None,
    n: Answers = 1,
    temperature: Temperature = 1.0,
    max_tokens: MaxTokens = 128,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many rows, prompts or items.")] = None,
    difficulty: Annotated[Path | None, typer.Option(help="A CSV of prompt difficulties for length control.")] = None,
    margin: Annotated[float | None, typer.Option(min=0, help="Of outcomes: are two arms equivalent within this share?")] = None,
    leaderboard: Leaderboard = None,
    plugins: Annotated[list[str] | None, typer.Option(help="Your own files or modules with benchmarks and rewards.")] = None,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Write everything here as JSON.")] = None,
) -> None:
    """Say what can be said of a model, a file or a run, with intervals."""
    from evenhand.evaluation.answers import holds_answers
    from evenhand.plugins import activate, resolve
    from evenhand.results.finished_run import is_run

    path = Path(target)
    activate(resolve(plugins or [], Path()))
    if pairs is not None and (is_run(path) or holds_answers(path)):
        raise UserError("is not a reward model, so --pairs says nothing", where=target, fix="name a reward model or a reward")
    _check_there(path, target)
    refuse_unfinished(path)
    if tasks:
        found = _harness(target, tasks, include, shots, limit, chat_template, allow_code_execution, device, leaderboard)
    elif is_run(path):
        found = _run(path, leaderboard)
    elif holds_answers(path):
        found = _file(path, difficulty, margin, leaderboard, {name: _scorer(name, device) for name in against or []})
    elif pairs is not None:
        found = _reward_model(target, pairs, against or [], category, probes, limit, device, leaderboard)
    else:
        found = _policy(target, prompts, n, temperature, max_tokens, limit, device)
    tables.show(_shown(found), found, out)


def _check_there(path: Path, target: str) -> None:
    """What can only be a path is not looked for on the Hub, whose names have one slash at most."""
    named = path.suffix in FILES or target.startswith((".", "/", "~")) or target.count("/") > 1
    if named and not path.expanduser().exists() and ":" not in target:
        raise UserError("there is no such file or folder", where=target, fix="give a run, a model's folder or a file that exists")


def _run(path: Path, leaderboard: Path | None) -> dict[str, Any]:
    from evenhand.evaluation.readers import merge_jsonl
    from evenhand.results.finished_run import evaluate_run, leaderboard_lines, open_run

    run = open_run(path)
    if leaderboard is not None:
        merge_jsonl(leaderboard, leaderboard_lines(run), ("experiment", "arm", "judge"))
    return evaluate_run(run)


def _file(
    path: Path, difficulty: Path | None, margin: float | None, leaderboard: Path | None, scorers: Mapping[str, Any]
) -> dict[str, Any]:
    from evenhand.evaluation.alpaca_eval import write_leaderboard
    from evenhand.evaluation.dispatch import evaluate_file, read_difficulty

    found = evaluate_file(path, read_difficulty(difficulty) if difficulty else None, margin, scorers)
    if leaderboard is not None:
        if "leaderboard" not in found:
            raise UserError(
                f"a file of {found['kind']} has no leaderboard", where="--leaderboard", fix="give annotations or a run"
            )
        write_leaderboard(leaderboard, found["leaderboard"])
    return found


def _reward_model(
    target: str, pairs: Path, against: list[str], category: str, probes: bool, limit: int | None, device: str,
    leaderboard: Path | None,
) -> dict[str, Any]:  # fmt: skip
    from evenhand.data.load import load
    from evenhand.evaluation import pairs as on_pairs
    from evenhand.evaluation.leaderboard import reward_leaderboard
    from evenhand.evaluation.probes import probe
    from evenhand.evaluation.readers import merge_jsonl, read_located
    from evenhand.evaluation.reward_benchmarks import answer_scorer, kind_of, report

    scorers = {name: _scorer(name, device) for name in (target, *against)}
    scorer = scorers[target]
    rows = read_located(pairs)[:limit] if pairs.suffix in (".json", ".jsonl", ".gz") else []
    kind = kind_of(rows[0][1]) if rows else None
    groups = [] if kind else load(str(pairs), where=str(pairs)).groups[:limit]
    found: dict[str, Any] = {"kind": kind or "reward model", "name": target}
    if kind:
        found |= report(kind, rows, answer_scorer(scorer))
    else:
        found |= on_pairs.report(on_pairs.score_pairs(groups, scorer, category=category or None))
        found |= {"probes": probe(groups, scorer)} if probes else {}
        found |= {"side_by_side": on_pairs.side_by_side(groups, scorers)} if against else {}
    if against or leaderboard is not None:
        board = reward_leaderboard(kind, rows, groups, scorers, category or None)
        found["reward_models"] = board
        if leaderboard is not None:
            merge_jsonl(leaderboard, [{**row, "file": pairs.name} for row in board], ("model", "benchmark", "file"))
    return found


def _scorer(name: str, device: str) -> Any:
    """A reward by name or folder; `dpo:POLICY:REFERENCE:BETA` is DPO's implicit reward, `local:POLICY:BETA` beta log pi."""
    from evenhand.evaluation.logprobs import implicit_reward, log_probs, scaled

    kind, _, rest = name.partition(":")
    parts = rest.split(":")
    if kind == "dpo" and len(parts) == 3:
        policy, reference = (log_probs(*open_policy(p, device)) for p in parts[:2])
        return implicit_reward(policy, reference, beta=_number(parts[2], name))
    if kind == "local" and len(parts) == 2:
        return scaled(log_probs(*open_policy(parts[0], device)), _number(parts[1], name))
    return scorer(name, device)


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"'{text}' is not a number", where=where, fix="end with the method's beta, e.g. 0.1") from error


def _policy(
    target: str, prompts: Path | None, n: int, temperature: float, max_tokens: int, limit: int | None, device: str
) -> dict[str, Any]:
    from evenhand.engines.registry import DEFAULT, open_engine
    from evenhand.evaluation import refusals
    from evenhand.evaluation.dispatch import answers_report

    if is_reward_model(model_path(target)):
        raise UserError("a reward model needs pairs to be evaluated on", where=target, fix="add --pairs FILE")
    policy, renderer = open_policy(target, device)
    asked = read_prompts(prompts, renderer) if prompts else refusals.prompts(chat=bool(renderer.tokenizer.chat_template))
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=0)
    groups = open_engine(DEFAULT, policy, renderer).generate(asked[:limit], n, sampling, progress=Progress("answered"))
    return {"kind": "policy", "name": target, **answers_report(groups)}


def _harness(
    target: str, tasks: str, include: Path | None, shots: int | None, limit: int | None, chat: bool, code: bool, device: str,
    leaderboard: Path | None,
) -> dict[str, Any]:  # fmt: skip
    from evenhand.evaluation.harness import leaderboard_lines, run_tasks
    from evenhand.evaluation.readers import merge_jsonl
    from evenhand.models.load import whole_folder

    model: AbstractContextManager[Any]
    names = [t.strip() for t in tasks.split(",") if t.strip()]
    if target == "dummy":
        from lm_eval.models.dummy import DummyLM

        backend, model = "dummy", nullcontext(DummyLM())
    else:
        backend, model = "hf", whole_folder(model_path(target))
    with model as opened:
        found = run_tasks(
            opened, names, backend=backend, include=include, shots=shots, limit=limit, chat_template=chat,
            allow_code_execution=code, device=None if device == "auto" else device,
        )  # fmt: skip
    if leaderboard is not None:
        merge_jsonl(leaderboard, leaderboard_lines(target, found), ("model", "task"))
    return {"kind": "harness tasks", "name": target, "tasks": found}


def _shown(found: Mapping[str, Any]) -> list[str]:
    lines = [f"kind: {found['kind']}"]
    rest = {k: v for k, v in found.items() if k not in ("kind", "calibration")}
    if found["kind"] == "outcomes":
        return [*lines, *tables.comparison_lines(found)]
    if found["kind"] == "battles":
        return [*lines, *tables.rating_lines(found)]
    if curves := rest.pop("best_of_n", None):
        lines += tables.best_of_n_lines(curves)
    if biases := rest.get("length_bias"):  # the heat map is for a picture; it stands in --out
        rest["length_bias"] = {name: {k: v for k, v in row.items() if k != "heat"} for name, row in biases.items()}
    if board := rest.pop("leaderboard", None):
        lines += tables.leaderboard_table(board)
    if board := rest.pop("reward_models", None):
        lines += tables.reward_board_lines(board)
    if "tasks" in rest:
        rest["tasks"] = {name: {k: v for k, v in row.items() if k != "items"} for name, row in rest["tasks"].items()}
    return [*lines, *tables.plain_lines(rest)]
