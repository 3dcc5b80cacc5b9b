"""How an experiment compares: answers to held-out prompts, verdicts on them, and what is measured beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evenhand.plan.graph import HELDOUT, SHARED, Graph, language_model
from evenhand.spec.experiment import Judge

BySeed = Mapping[str, Mapping[int, str]]
"""arm -> seed -> node."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Answers and verdicts of every arm and seed under one completion limit."""

    generations: BySeed
    verdicts: BySeed


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Where the comparison's artifacts are: see `Plan`."""

    generations: BySeed
    verdicts: BySeed
    judge_test: str | None
    reward_samples: str | None
    frontiers: BySeed
    grid: Mapping[int, Cells]


def compare(graph: Graph) -> Compared:
    """Every stage that follows training, generations before verdicts, so that the board shows them in this order."""
    cells = judged_cells(graph, graph.e.lengths.completion)
    return Compared(
        generations=cells.generations,
        verdicts=cells.verdicts,
        judge_test=self_test(graph, cells.generations),
        reward_samples=reward_samples(graph),
        frontiers=frontiers(graph),
        grid={limit: judged_cells(graph, limit) for limit in sorted(set(graph.e.evaluation.length_grid))},
    )


def judged_cells(graph: Graph, limit: int) -> Cells:
    """Every arm's answers of at most `limit` tokens, judged against the baseline's under the same limit.

    Under the experiment's own limit these are the stages of the comparison itself.
    """
    answers: dict[str, dict[int, str]] = {name: {} for name in graph.e.arms}
    verdicts: dict[str, dict[int, str]] = {name: {} for name in graph.e.arms}
    for seed in graph.e.seeds:  # a seed of all arms before the next one, so that a run that is stopped has something to compare
        for name in graph.e.arms:
            answers[name][seed] = generation(graph, name, seed, limit)
    for seed in graph.e.seeds:
        for name in graph.e.arms:
            verdicts[name][seed] = verdict(graph, name, seed, answers, limit)
    return Cells(answers, verdicts)


def generation(graph: Graph, name: str, seed: int, limit: int) -> str:
    """Answers of one arm to the held-out prompts."""
    arm, asked = graph.arms[name], graph.questions
    spec = {
        "sampling": asdict(graph.e.evaluation.sampling), "prompts": asked.count,
        "lengths": graph.lengths | {"completion": limit}, "template": graph.e.model.template,
        "tokens_per_microbatch": arm.train.tokens_per_microbatch, **graph.device,
    }  # fmt: skip
    start = graph.models[graph.e.start, seed]
    inputs = {"policy": graph.models[f"arms/{name}", seed], "start": start, "data": graph.data}
    cost = f"{asked.count} held-out prompts" if asked.split == HELDOUT else f"{asked.count} validation prompts"
    spec |= {"split": asked.split} if asked.split != HELDOUT else {}
    if arm.best_of > 1 and arm.reward is not None:
        spec |= {"best_of": arm.best_of, "reward": graph.reward_spec(arm.reward)}
        inputs |= graph.reward_inputs(arm.reward, seed)
        cost += f" x {arm.best_of}"
    place, row = _under(graph, limit, name)
    return graph.add(
        f"{place}generations/{name}/seed-{seed}", "generate", spec, inputs, seed, f"{row} answers", f"seed {seed}", cost
    )


def verdict(graph: Graph, name: str, seed: int, answers: BySeed, limit: int) -> str:
    """One arm's answers against the baseline's of the same seed."""
    names = list(graph.e.reward_models) if graph.questions.split == HELDOUT else []  # proxies are for the report
    lengths = graph.lengths | {"completion": limit}
    spec = {**_judge_spec(graph), "lengths": lengths, "proxies": {n: graph.reward_spec(n) for n in names}}
    inputs = {"answers": answers[name][seed], "baseline": answers[graph.e.baseline_arm][seed]}
    inputs |= _judge_inputs(graph, seed)
    for n in names:
        inputs |= graph.model_inputs(n, seed)
    place, row = _under(graph, limit, name)
    cost = _judge_cost(graph)
    return graph.add(f"{place}verdicts/{name}/seed-{seed}", "judge", spec, inputs, seed, f"{row} verdicts", f"seed {seed}", cost)


def _under(graph: Graph, limit: int, arm: str) -> tuple[str, str]:
    """Where stages under this limit are, and the board's row of the arm: the experiment's own limit goes without saying."""
    return ("", arm) if limit == graph.lengths["completion"] else (f"length_grid/{limit}/", f"{arm}, {limit} tokens,")


def self_test(graph: Graph, answers: BySeed) -> str | None:
    """The judge on pairs whose verdict is known: answers of the data, or the baseline's where the data have none."""
    size, seed = graph.e.judge.self_test, graph.e.seeds[0]
    if not size:
        return None
    inputs = {"data": graph.data, "answers": answers[graph.e.baseline_arm][seed], **_judge_inputs(graph, seed)}
    spec = {**_judge_spec(graph), "prompts": size}
    return graph.add("judge/self-test", "judge_self_test", spec, inputs, 0, "judge self-test", SHARED, f"{size} prompts")


def reward_samples(graph: Graph) -> str | None:
    """Several answers per held-out prompt, scored by every reward model of the first seed, and by a judge that scores."""
    count, seed, names = graph.e.evaluation.best_of_n, graph.e.seeds[0], list(graph.e.reward_models)
    if count < 2 or not names:
        return None
    gold = graph.reward_spec(graph.e.judge.reward) if isinstance(graph.e.judge, Judge) else None
    spec = {
        "proxies": {n: graph.reward_spec(n) for n in names}, "gold": gold, "completions_per_prompt": count,
        "sampling": asdict(graph.e.evaluation.sampling), "prompts": graph.e.evaluation.prompts, "lengths": graph.lengths,
        "template": graph.e.model.template, **graph.device,
    }  # fmt: skip
    inputs = {"start": graph.models[graph.e.start, seed], "data": graph.data, **_judge_inputs(graph, seed)}
    for n in names:
        inputs |= graph.model_inputs(n, seed)
    cost = f"{graph.e.evaluation.prompts} prompts x {count}"
    return graph.add("samples/start", "sample_rewards", spec, inputs, 0, "reward samples", SHARED, cost)


def frontiers(graph: Graph) -> dict[str, dict[int, str]]:
    """For every trained arm that was sampled in training: its samples under the judge, where the judge scores."""
    if not (graph.e.evaluation.frontier and isinstance(graph.e.judge, Judge)):
        return {}
    found: dict[str, dict[int, str]] = {}
    names = list(graph.e.reward_models)
    for arm in graph.arms.values():
        if not (arm.trained and arm.train.sample_every):
            continue
        for seed in graph.e.seeds if arm.per_seed else graph.e.seeds[:1]:
            spec = {
                "gold": graph.reward_spec(graph.e.judge.reward), "proxy": graph.reward_spec(names[0]) if names else None,
                "lengths": graph.lengths, "template": graph.e.model.template, **graph.device,
            }  # fmt: skip
            inputs = {
                "arm": graph.models[f"arms/{arm.name}", seed],
                "start": graph.models[graph.e.start, seed],
                "data": graph.data,
            }
            inputs |= _judge_inputs(graph, seed)
            inputs |= graph.model_inputs(names[0], seed) if names else {}
            name = f"frontier/{arm.name}/seed-{seed}"
            found.setdefault(arm.name, {})[seed] = graph.add(
                name, "frontier", spec, inputs, 0, f"{arm.name} frontier", f"seed {seed}", "score samples of training"
            )
    return found


def _judge_spec(graph: Graph) -> dict[str, Any]:
    shared = {"lengths": graph.lengths, "template": graph.e.model.template, **graph.device}
    judge = graph.e.judge
    if isinstance(judge, Judge):
        return {"judge": graph.reward_spec(judge.reward), "tie": judge.tie, **shared}
    return {**language_model(judge), **shared}


def _judge_inputs(graph: Graph, seed: int) -> dict[str, str]:
    return graph.reward_inputs(graph.e.judge.reward, seed) if isinstance(graph.e.judge, Judge) else {}


def _judge_cost(graph: Graph) -> str:
    pairs = graph.questions.count
    if isinstance(graph.e.judge, Judge):
        return "score both answers"
    return f"{pairs} pairs in " + ("one order" if getattr(graph.e.judge, "orders", "both") == "one" else "both orders")
