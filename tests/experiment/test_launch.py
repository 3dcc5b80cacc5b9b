from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from fake_stages import Node, chain_result, plan

from evenhand import run_experiment
from evenhand.configfile.schema import load
from evenhand.errors import UserError
from evenhand.results.record import ArmResult, FailedStage, Results
from evenhand.runner.local import run
from evenhand.store.locks import locked


@dataclass(frozen=True, kw_only=True)
class Runtime:
    workers: int | None = 2
    threads: int = 1
    store: str | None = None
    runner: str = "local"


@dataclass(frozen=True, kw_only=True)
class Doctor:
    waive: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    arms: Mapping[str, str] = field(default_factory=dict)
    steps: int = 2
    runtime: Runtime = Runtime()
    doctor: Doctor = Doctor()
    tracker: str | None = None


def clamped(loaded):
    return loaded


def read_experiment(source, overrides=(), *, find=None, before=lambda document: document):
    return load(Experiment, source, overrides, find=find, before=before)


def build(experiment):
    if experiment.steps == 13:
        raise UserError("13 is unlucky", where="steps", fix="use 12")
    spec = {"steps": experiment.steps}
    start = Node(name="start", kind="chain", spec=spec)
    named = {"spec": spec, "seed": 1, "inputs": {"p": "start"}}
    return plan(start, *(Node(name=f"arms/{a}/seed-1", kind=k, row=a, **named) for a, k in experiment.arms.items()))


def assemble(made, store, out, *, errors, waived):
    arms = {n.row: ArmResult(win_rate=0.5, kl=math.nan) for n in made.nodes if n.row != "shared" and store.has(n.key)}
    failed = tuple(FailedStage(node=node, error=error) for node, error in errors.items())
    return Results(baseline="start", arms=arms, failed=failed, waived=waived)


@pytest.fixture(autouse=True)
def fakes(monkeypatch, tmp_path):
    for fake in (read_experiment, clamped, build, assemble):
        monkeypatch.setattr(run_experiment, fake.__name__, fake)
    monkeypatch.setattr(run_experiment, "run", partial(run, stages="fake_stages"))
    monkeypatch.setattr(run_experiment, "BUILTIN", tmp_path / "builtin")
    (tmp_path / "builtin").mkdir()
    (tmp_path / "builtin" / "quickstart.yaml").write_text("arms: {a: chain}\n")
    (tmp_path / "builtin" / "notes.yaml").write_text("arms: {b: chain}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVENHAND_STORE", raising=False)


def test_a_built_in_name_or_a_path():
    assert run_experiment.prepare("quickstart").loaded.value.arms == {"a": "chain"}
    Path("mine.yaml").write_text("extends: quickstart\nsteps: 5\narms: {c: chain}\n")
    prepared = run_experiment.prepare("mine.yaml", ["steps=7"])
    assert prepared.loaded.value == Experiment(arms={"a": "chain", "c": "chain"}, steps=7)
    assert prepared.out == Path("runs/mine")
    assert not prepared.out.exists(), "nothing is written yet"


def test_an_unknown_name_lists_the_built_in_ones():
    with pytest.raises(UserError) as caught:
        run_experiment.prepare("quickstrat")
    assert "did you mean 'quickstart'?" in caught.value.fix
    with pytest.raises(UserError) as caught:
        run_experiment.prepare("nowhere/x.yaml")
    assert caught.value.where == "nowhere/x.yaml"
    assert "notes, quickstart" in caught.value.fix


def test_faults_of_planning_get_their_line():
    Path("mine.yaml").write_text("arms: {}\nsteps: 13\n")
    with pytest.raises(UserError) as caught:
        run_experiment.prepare("mine.yaml")
    assert caught.value.where == "mine.yaml:2: steps"


def test_the_store_is_the_experiments_or_the_environments_or_the_runs(monkeypatch):
    assert run_experiment.prepare("quickstart", out=Path("o")).store.root == Path("o/store").absolute()
    monkeypatch.setenv("EVENHAND_STORE", "shared")
    assert run_experiment.prepare("quickstart").store.root == Path("shared").absolute()
    assert run_experiment.prepare("quickstart", ["runtime.store=mine"]).store.root == Path("mine").absolute()


def test_a_run_directory_has_everything():
    prepared = run_experiment.prepare("quickstart", ["arms.bad=fail"], Path("out"))
    outcome, results = run_experiment.execute(prepared)
    assert not outcome.ok
    assert results.arms == {"a": ArmResult(win_rate=0.5)}, "what is returned is what was written"
    written = json.loads(Path("out/results.json").read_text())
    assert (written["arms"]["a"]["win_rate"], written["arms"]["a"]["kl"]) == (0.5, None), "JSON has no NaN"
    assert written["failed"] == [{"node": "arms/bad/seed-1", "error": "RuntimeError: the stage broke"}]
    assert Path("out/arms/a/seed-1/chain.txt").read_text() == chain_result(1, chain_result(0, steps=2), steps=2)
    record = json.loads(Path("out/experiment.json").read_text())
    assert record["given"] == {"arms": {"a": "chain", "bad": "fail"}}
    assert record["effective"]["steps"] == 2
    assert [n["name"] for n in record["nodes"]] == ["start", "arms/a/seed-1", "arms/bad/seed-1"]
    assert record["store"] == "store"
    assert "torch" in record["versions"]


def test_shown_artifacts_are_links_and_follow_the_plan():
    prepared = run_experiment.prepare("quickstart", out=Path("out"))
    run_experiment.execute(prepared)
    shown = Path("out/arms/a/seed-1/chain.txt")
    assert shown.samefile(prepared.store.path(prepared.plan.nodes[1].key) / "chain.txt")
    run_experiment.execute(run_experiment.prepare("notes", out=Path("out")))
    assert [p.name for p in Path("out/arms").iterdir()] == ["b"], "an arm that is gone from the plan is gone from view"
    assert prepared.store.has(prepared.plan.nodes[1].key), "but not from the store"


def test_a_run_directory_can_be_run_again():
    run_experiment.execute(run_experiment.prepare("quickstart", ["steps=4"], Path("out")))
    again = run_experiment.prepare("out", out=Path("copy"))
    assert again.loaded.value == Experiment(arms={"a": "chain"}, steps=4)
    assert [n.key for n in again.plan.nodes] == [n.key for n in run_experiment.prepare("quickstart", ["steps=4"]).plan.nodes]


def test_a_run_directory_by_itself_goes_on_where_it_is():
    run_experiment.execute(run_experiment.prepare("quickstart", ["steps=4"], Path("elsewhere/out")))
    again = run_experiment.prepare("elsewhere/out")
    assert again.out == Path("elsewhere/out")
    assert not again.unfinished(), "its own store has all of it"
    assert run_experiment.prepare("elsewhere/out/experiment.json").out == Path("runs/out"), "a file is a file"


def test_results_do_not_depend_on_when_or_how_they_were_made():
    run_experiment.execute(run_experiment.prepare("quickstart", out=Path("one")), workers=1)
    run_experiment.execute(run_experiment.prepare("quickstart", out=Path("two")), workers=0)
    for name in ("results.json", "experiment.json", "arms/a/seed-1/chain.txt", "arms/a/seed-1/meta.json"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


def test_nothing_to_compare_is_no_result():
    outcome, results = run_experiment.execute(run_experiment.prepare("quickstart", ["arms.a=fail"], Path("out")))
    assert results is None
    assert not outcome.ok
    assert not Path("out/results.json").exists()


def test_two_runs_do_not_share_a_run_directory():
    prepared = run_experiment.prepare("quickstart", out=Path("out"))
    prepared.out.mkdir()
    with locked(prepared.out / ".lock"), pytest.raises(UserError, match="another run is working here"):
        run_experiment.execute(prepared)
    assert run_experiment.execute(prepared)[0].ok
