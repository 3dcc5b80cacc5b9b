"""What every reward model says of an experiment's answers: a stage for each model and each set of answers, for the report alone.

No verdict waits for them. A stage a set opens the model again for each (less than 0.3 of the 1.6 seconds of processor time that a
set of the quickstart takes), and so a further arm costs its own scores alone, and one that failed no other's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evenhand.plan.graph import HELDOUT, BySeed, Graph
from evenhand.rewards.served import COMPARES
from evenhand.stages.score_answers import ScoreAnswersSpec

Scored = Mapping[tuple[str, int], Mapping[str, str]]
"""(node of answers, seed) -> reward model -> node of its scores: the models of a seed score the answers of that seed."""


def of_answers(graph: Graph, answers: BySeed) -> dict[tuple[str, int], dict[str, str]]:
    """The comparison's own answers, by every reward model that scores one answer alone. Tuning asks other questions."""
    if graph.questions.split != HELDOUT:
        return {}
    cost = f"{graph.questions.count} answers"
    return {
        (node, seed): _scores(graph, seed, f"scores/{arm}/seed-{seed}", {"answers": node}, cost, _absolute(graph))
        for arm, seeds in answers.items()
        for seed, node in seeds.items()
    }  # fmt: skip


def of_samples(graph: Graph, start: str | None, arms: BySeed) -> dict[tuple[str, int], dict[str, str]]:
    """The samples of the start and of arms as every reward model scores them."""
    cost = f"{graph.e.evaluation.prompts} prompts x {graph.e.evaluation.best_of_n}"
    found = {} if start is None else {(start, s): f"{start}/scores" for s in graph.e.seeds[:1]}
    found |= {(node, seed): f"{node}/scores" for seeds in arms.values() for seed, node in seeds.items()}
    return {
        (node, seed): _scores(graph, seed, place, {"samples": node}, cost, list(graph.e.reward_models))
        for (node, seed), place in found.items()
    }  # fmt: skip


def of_training(graph: Graph, followed: BySeed) -> dict[tuple[str, int], dict[str, str]]:
    """The samples of training of arms without a reward of their own, as the first reward model that can scores them."""
    return {
        (node, seed): _scores(
            graph, seed, f"frontier/{arm}/seed-{seed}/scores", {"arm": node, "data": graph.data}, "samples of training",
            _absolute(graph)[:1],
        )
        for arm, seeds in followed.items() if graph.arms[arm].reward is None
        for seed in seeds for node in (graph.models[f"arms/{arm}", seed],)
    }  # fmt: skip


def _absolute(graph: Graph) -> list[str]:
    """The reward models that give an answer a score by itself; others compare it with further answers to its prompt."""
    return [name for name in graph.e.reward_models if graph.served_as(name) not in COMPARES]


def _scores(graph: Graph, seed: int, place: str, inputs: Mapping[str, str], cost: str, names: Sequence[str]) -> dict[str, str]:
    """One stage per reward model: what one cannot score, another still does."""
    return {
        name: graph.add(
            f"{place}/{name}", ScoreAnswersSpec(reward=graph.reward_spec(name), setup=graph.setup),
            {**inputs, **graph.model_inputs(name, seed)}, row=f"{name} scores", column=f"seed {seed}", cost=cost,
        )
        for name in names
    }  # fmt: skip
