"""A revision re-keys the stages that run what was mended, and no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evenhand import plugins
from evenhand.methods import METHODS
from evenhand.objectives.pairwise import PAIR_LOSSES
from evenhand.objectives.registry import OBJECTIVES
from evenhand.plan.plan import build
from evenhand.registry import REGISTRIES, Registry, revisions
from evenhand.spec.read import read_experiment
from evenhand.train.rollouts.credits import CREDITS

EXPERIMENT = """
name: revised
seeds: [0]
data: {world: quickstart, sizes: {demonstrations: 8, preferences: 8, prompts: 8, heldout_preferences: 8}}
model: {pretrain: {documents: 8, train: {steps: 1}}}
train: {steps: 2}
sft: {train: {steps: 1}}
initial_policy: sft
arms:
  dpo: {method: dpo}
  ipo: {method: ipo}
  rloo: {method: rloo, reward: gold}
  grpo: {method: grpo, reward: gold}
"""
TRAINED = {"base", "sft", "dpo", "ipo", "rloo", "grpo"}


def keys(text: str = EXPERIMENT, *overrides: str) -> dict[str, str]:
    """By what is trained."""
    plan = build(read_experiment(text, overrides).value)
    return {node.row: node.key for node in plan.nodes if node.kind == "fit"}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("registry", "name", "users"),
    [
        (METHODS, "dpo", {"dpo"}),
        (PAIR_LOSSES, "ipo", {"ipo"}),
        (OBJECTIVES, "pairwise", {"dpo", "ipo"}),
        (CREDITS, "leave_one_out", {"rloo"}),
        (OBJECTIVES, "likelihood", TRAINED),  # of base and sft, from which all start
    ],
)
def test_raising_one_changes_the_keys_of_those_who_use_it(monkeypatch, registry: Registry, name: str, users: set[str]) -> None:
    before = keys()
    assert before.keys() == TRAINED
    monkeypatch.setitem(registry.entries, name, replace(registry.entries[name], revision=registry.entries[name].revision + 1))
    assert changed(before, keys()) == users


def test_at_nought_nothing_is_added() -> None:
    assert revisions({"method": "dpo", "kind": "length", "reward": {"kind": "function"}}) == {}
    assert revisions([{"method": "kto"}, {"loss": "kto"}]) == {"revision of method kto": "1"}


@pytest.mark.parametrize(
    ("setting", "users"),
    [
        ("arms.dpo.train.optimizer=adamw_8bit", {"dpo"}),
        ("arms.dpo.reference_update={every: 1}", {"dpo"}),
    ],
)
def test_a_value_of_a_setting_has_a_revision_of_its_own(monkeypatch, setting: str, users: set[str]) -> None:
    plain, raised = keys(), keys(EXPERIMENT, setting)
    monkeypatch.setattr("evenhand.plan.graph.revisions", lambda value: {})
    assert changed(plain, keys()) == set(), "those at nought"
    assert changed(raised, keys(EXPERIMENT, setting)) == users


def test_a_method_of_a_plugin_has_one_too(monkeypatch, tmp_path: Path) -> None:
    code = """
from evenhand.methods import METHODS, Method, method

@method(revision=NUMBER)
def my_dpo(*, beta: float = 0.1) -> Method:
    return METHODS["dpo"](beta=beta)
"""
    found = []
    monkeypatch.setattr(plugins, "_digest", lambda files: "the same")
    for number in (0, 1, 2):
        (tmp_path / "mine.py").write_text(code.replace("NUMBER", str(number)))
        plugins.activate(())
        plugins.activate(plugins.resolve([str(tmp_path / "mine.py")], tmp_path))
        found.append(keys(EXPERIMENT + "  own: {method: my_dpo}\n"))
    plugins.activate(())
    assert "my_dpo" not in REGISTRIES["method"]
    assert changed(found[0], found[1]) == changed(found[1], found[2]) == {"own"}
