"""From an experiment to its graph of stages, with a key for each: what is equal is shared, what differs is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from evenhand import plugins
from evenhand.plan import evaluation, training
from evenhand.plan.evaluation import ComparisonArtifacts
from evenhand.plan.graph import SHARED, BySeed, Graph, Node, Questions
from evenhand.plan.more_evaluations import PlannedEvaluation, more_evaluations
from evenhand.plugins import Plugin
from evenhand.spec.experiment import Experiment

__all__ = ["SHARED", "Node", "Plan", "build"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(ComparisonArtifacts):
    """Nodes in topological order, where the arms' artifacts are (`arms[arm][seed]`), and those of their comparison."""

    nodes: tuple[Node, ...]
    arms: BySeed
    reward_models: BySeed
    evaluations: Mapping[str, PlannedEvaluation] = field(default_factory=dict)
    """By name: the answers and verdicts of the evaluations beside the comparison."""
    experiment: Experiment
    plugins: tuple[Plugin, ...] = ()
    """The user's code that stages may need."""

    def __getitem__(self, name: str) -> Node:
        return next(n for n in self.nodes if n.name == name)

    def trained(self, arm: str) -> bool:
        """False for an arm that is another stage's model, untouched; true for twins, whose stage has the other one's name."""
        return self.experiment.arm(arm).trained


def build(experiment: Experiment, questions: Questions | None = None) -> Plan:
    """The whole graph: data, base, sft, reward models, arms, their generations on held-out prompts, and the verdicts.

    Arms answer `questions` instead where they are given.
    """
    graph, seeds = Graph(experiment, questions), experiment.seeds
    training.data(graph)
    training.starts(graph)
    reward_models: dict[str, dict[int, str]] = {n: {} for n in experiment.reward_models}
    arms: dict[str, dict[int, str]] = {n: {} for n in experiment.arms}
    for seed in seeds:
        for name, node in training.reward_models(graph, seed).items():
            reward_models[name][seed] = node
        for arm in graph.arms.values():
            arms[arm.name][seed] = training.policy(graph, arm, seed)
    compared, more = evaluation.compare(graph), more_evaluations(graph)
    return Plan(
        nodes=tuple(graph.nodes.values()), arms=arms, reward_models=reward_models, experiment=experiment, evaluations=more,
        plugins=plugins.active(), **{f.name: getattr(compared, f.name) for f in fields(compared)},
    )  # fmt: skip
