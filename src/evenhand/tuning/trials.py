"""A trial is an ordinary part of an ordinary experiment: one arm with other settings, other seeds, and validation prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evenhand.plan.graph import SHARED, Node, Questions
from evenhand.plan.plan import build
from evenhand.spec.experiment import Experiment, ScoringJudge
from evenhand.spec.search_spaces import RATE
from evenhand.spec.tuning import MeanReward, Tune
from evenhand.stages.validation_split import SPLIT

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Settings of an arm and the nodes that try them: `fits` and `verdicts` by seed."""

    arm: str
    number: int
    settings: Settings
    fits: Mapping[int, str]
    verdicts: Mapping[int, str]


class Nodes:
    """The stages of all trials so far, by name and by key: what two trials share is one node."""

    def __init__(self) -> None:
        self.by_name: dict[str, Node] = {}
        self._by_key: dict[str, str] = {}

    def add(self, nodes: Iterable[Node]) -> tuple[list[Node], dict[str, str]]:
        """The nodes that are new, inputs first, and what every one of `nodes` is called here."""
        new: list[Node] = []
        called: dict[str, str] = {}
        for node in nodes:
            if node.key not in self._by_key:
                name = node.name if node.name not in self.by_name else f"{node.name}-{node.key[:8]}"
                inputs = {role: called[other] for role, other in node.inputs.items()}
                own = replace(node, name=name, inputs=inputs, after=tuple(called[other] for other in node.after))
                self.by_name[name], self._by_key[node.key] = own, name
                new.append(own)
            called[node.name] = self._by_key[node.key]
        return new, called


def planned(
    experiment: Experiment, arm: str, number: int, settings: Settings, chosen: Mapping[str, Settings], nodes: Nodes
) -> tuple[Trial, list[Node]]:
    """A trial and its new nodes. `chosen` are the settings of arms whose tuning is over, for an arm that starts from one."""
    tune = _tune(experiment)
    name = f"{arm}/trial-{number}"
    plan = build(of_trial(experiment, arm, name, settings, chosen), Questions(SPLIT, tune.prompts))
    wanted = [*plan.arms[name].values(), *plan.verdicts[name].values()]
    new, called = nodes.add(placed(node, name, number) for node in needed(plan.nodes, wanted))
    fits = {seed: called[node] for seed, node in plan.arms[name].items()}
    verdicts = {seed: called[node] for seed, node in plan.verdicts[name].items()}
    return Trial(arm=arm, number=number, settings=dict(settings), fits=fits, verdicts=verdicts), new


def placed(node: Node, name: str, number: int) -> Node:
    """The node where the board shows it: a row per arm and a column per trial, and what trials share in a column of its own."""
    own = node.row == name or node.row.startswith(f"{name} ")
    return replace(node, row=name.split("/")[0], column=f"trial {number}") if own else replace(node, column=SHARED)


def of_trial(experiment: Experiment, arm: str, name: str, settings: Settings, chosen: Mapping[str, Settings]) -> Experiment:
    """The baseline as the file has it, the arm under `name` with other settings, and what it starts from, as tuned."""
    e, tune = experiment, _tune(experiment)
    arms = {e.baseline_arm: e.arms[e.baseline_arm]}
    place, raw = name, with_settings(e.arms[arm], settings)
    if tune.steps != 1.0:
        raw = _shortened(raw, e.train, tune.steps)
    while (start := raw.get("initial_policy", e.initial_policy)) in e.arms and start not in e.stages():
        arms[place] = {**raw, "initial_policy": f"{start}/tuned"}
        place, raw = f"{start}/tuned", with_settings(e.arms[start], chosen.get(start, {}))
    arms[place] = raw
    yardstick = e.arms[e.baseline_arm].get("initial_policy", e.initial_policy)
    while yardstick in e.arms and yardstick not in e.stages():
        arms.setdefault(yardstick, e.arms[yardstick])
        yardstick = e.arms[yardstick].get("initial_policy", e.initial_policy)
    judge = ScoringJudge(reward=tune.objective.reward) if isinstance(tune.objective, MeanReward) else e.judge
    return replace(e, arms=arms, seeds=tune.seeds, baseline=e.baseline_arm, judge=judge)


def with_settings(raw: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """An arm as an experiment file writes it, with settings put in their places.

    >>> with_settings({"method": "dpo", "beta": 0.1}, {"beta": 0.3, "learning_rate": 1e-4, "train.warmup": 0.1})
    {'method': 'dpo', 'beta': 0.3, 'train': {'learning_rate': 0.0001, 'warmup': 0.1}}
    """
    train = {n.removeprefix("train."): v for n, v in settings.items() if n == RATE or n.startswith("train.")}
    own = {n: v for n, v in settings.items() if n != RATE and not n.startswith("train.")}
    return {**raw, **own, **({"train": {**raw.get("train", {}), **train}} if train else {})}


def _shortened(raw: Mapping[str, Any], shared: Mapping[str, Any], share: float) -> dict[str, Any]:
    """The arm with a share of its training budget."""
    train = {**shared, **raw.get("train", {})}
    if train.get("steps") is not None:
        cut: dict[str, Any] = {"steps": max(1, round(train["steps"] * share))}
    else:
        cut = {"epochs": train["epochs"] * share}
    return {**raw, "train": {**raw.get("train", {}), **cut}}


def needed(nodes: Sequence[Node], wanted: Iterable[str]) -> list[Node]:
    """The nodes that `wanted` ones need, themselves included, inputs first."""
    names = set(wanted)
    for node in reversed(nodes):
        if node.name in names:
            names |= set(node.needs)
    return [node for node in nodes if node.name in names]


def _tune(experiment: Experiment) -> Tune:
    assert experiment.tune is not None, "`launch.prepare` sees to it"
    return experiment.tune
