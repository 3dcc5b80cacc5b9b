"""Method parameters in keys: a method may gain parameters without losing the results that were stored before."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from evenhand.configfile.schema import load
from evenhand.methods import METHODS
from evenhand.plan import parameters
from evenhand.plan.parameters import FIRST, decisive, revision
from evenhand.plan.plan import build
from evenhand.registry import Entry
from evenhand.run_experiment import BUILTIN
from evenhand.spec.arms import Arm, Train
from evenhand.spec.experiment import Experiment


def later(*, beta: float = 0.1, new: float = 0.0) -> None:
    """A method that gained `new`."""


def test_a_later_parameter_is_named_only_where_it_says_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS.entries, "m", Entry("m", later, {}, Path(__file__), 1))
    monkeypatch.setitem(FIRST, "m", "beta")
    assert decisive("m", {"beta": 0.1, "new": 0.0}) == {"beta": 0.1}
    assert decisive("m", {"beta": 0.2, "new": 0.5}) == {"beta": 0.2, "new": 0.5}


def test_a_new_method_names_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS.entries, "m", Entry("m", later, {}, Path(__file__), 1))
    assert decisive("m", {"beta": 0.1, "new": 0.0}) == {"beta": 0.1, "new": 0.0}


def test_the_table_speaks_of_methods_and_parameters_that_exist() -> None:
    import inspect

    assert parameters.FIRST.keys() <= METHODS.keys()
    for method, names in FIRST.items():
        assert set(names.split()) <= set(inspect.signature(METHODS[method]).parameters), method


@pytest.mark.parametrize(
    ("method", "parameters", "train", "weighted", "changed"),
    [
        ("aot", {}, {}, True, True),
        ("rpo", {}, {}, True, True),
        ("rpo", {}, {}, False, False),
        ("dpo", {}, {"evaluate_every": 5}, True, False),
        ("iterative_dpo", {"hybrid": True, "likelihood": 0.5, "rounds": 3, "epochs": 2}, {}, True, True),
        ("iterative_dpo", {"hybrid": True, "likelihood": 0.0, "rounds": 3, "epochs": 2}, {}, True, False),
        ("iterative_dpo", {"rounds": 3, "epochs": 2}, {"steps": 6}, False, False),
        ("iterative_dpo", {"rounds": 6, "epochs": 2}, {"steps": 6}, False, True),
        ("kto", {}, {}, True, False),
        ("kto", {}, {"evaluate_every": 5}, False, True),
    ],
)
def test_only_results_that_changed_have_another_key(method, parameters, train, weighted, changed) -> None:
    arm = Arm(name="a", method=method, parameters=parameters, train=Train(**train))
    assert revision(arm, weighted=weighted) == ({"revision": 1} if changed else {})


@pytest.mark.parametrize(("labels", "weighs"), [(None, False), ("hard", False), ("soft", True)])
def test_a_world_has_plain_pairs_unless_soft_labels_are_made(labels, weighs) -> None:
    raw = yaml.safe_load((BUILTIN / "quickstart.yaml").read_text())
    raw["arms"] = {"sft": {"method": "start"}, "aot": {"method": "aot"}}
    raw["annotate"] = {"reward": "gold"} | ({"labels": labels} if labels else {})
    specs = [n.spec for n in build(load(Experiment, raw).value).nodes if n.name.startswith("arms/aot")]
    assert specs
    assert all(("revision" in spec) == weighs for spec in specs)
