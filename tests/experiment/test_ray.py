"""Stages as tasks of a real Ray cluster of one machine: the bytes of the local runner, workers and driver killed."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fake_stages import Node, chain_plan, plan
from test_run import Watch, an_arm_killed, expected, goes_on_to_the_end, killed_at, reached, results

from evenhand.errors import UserError
from evenhand.runner import ray_cluster
from evenhand.runner.local import run
from evenhand.runner.ray_cluster import RayCrew, RayRunner
from evenhand.runner.state import StageStatus
from evenhand.spec.experiment import Resources
from evenhand.stages.setup import Compute, Setup
from evenhand.store.store import Store
from evenhand.train.config import Lengths

GIB = float(2**30)


class Machines:
    """What the crew asks of Ray before anything runs: two machines, one with a GPU."""

    def remote(self, **_):
        return lambda task: task

    def nodes(self):
        has = ({"CPU": 4.0, "memory": 8 * GIB}, {"CPU": 2.0, "GPU": 1.0, "memory": 64 * GIB})
        alive = [
            {"NodeID": str(i), "NodeManagerAddress": f"10.0.0.{i}", "Alive": True, "Resources": r} for i, r in enumerate(has)
        ]
        return [*alive, {"NodeID": "2", "NodeManagerAddress": "10.0.0.2", "Alive": False, "Resources": {"GPU": 8.0}}]


def crew(threads=1, **resources):
    return RayCrew(Machines(), None, SimpleNamespace(threads=threads), resources)


def on(device, ranks=1):
    return SimpleNamespace(setup=Setup(compute=Compute(device=device, dtype="float32", world_size=ranks), lengths=Lengths()))


@pytest.mark.parametrize(
    ("name", "kind", "spec", "asked"),
    [
        ("data", "data", SimpleNamespace(), {"CPU": 2.0}),
        ("arms/a/seed-0", "fit", on("cpu", ranks=2), {"CPU": 4.0}),
        ("arms/b/seed-0", "fit", on("cuda", ranks=2), {"CPU": 4.0, "GPU": 2.0}),
        ("sft", "fit", on("cuda"), {"CPU": 1.0, "GPU": 1.0, "memory": 3 * GIB}),
        ("arms/big/seed-1", "fit", on("cuda"), {"CPU": 2.0, "GPU": 0.5}),
    ],
)
def test_what_a_stage_asks_for(name, kind, spec, asked):
    """Its arm's own resources before those of its kind; by default its ranks' threads, and a GPU for each of them."""
    own = {"big": Resources(gpus=0.5)} if "big" in name else {"fit": Resources(cpus=1, memory=3)} if name == "sft" else {}
    assert crew(threads=2, **own).asked(name, kind, spec) == asked


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (Resources(gpus=2), "no machine of the cluster has 1 CPU, 2 GPU"),
        (Resources(cpus=3, gpus=1), "no machine of the cluster has 3 CPU, 1 GPU"),
        (Resources(memory=65), "no machine of the cluster has 1 CPU, 65 GiB of memory"),
        (Resources(gpus=1, memory=60), ""),
    ],
)
def test_what_no_machine_has_is_said_at_once(ask, told):
    """A machine that is lost counts for nothing, and no two machines together serve one stage."""
    node = Node(name="arms/a/seed-0", kind="fit")
    if told:
        with pytest.raises(UserError, match=told):
            crew(a=ask).check(node)
    else:
        crew(a=ask).check(node)


def test_a_ray_that_is_not_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="the package ray is not installed"):
        RayRunner()(plan(Node(name="a", kind="chain", spec={"steps": 1})), Store(tmp_path / "store"), tmp_path)


@pytest.fixture(scope="module")
def ray():
    """A cluster of this machine, which the runners of these tests find and leave."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    cluster = pytest.importorskip("ray")
    importable = cluster.job_config.JobConfig(_py_driver_sys_path=[path for path in sys.path if path])
    cluster.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20, _node_ip_address="127.0.0.1",
        job_config=importable,
    )  # fmt: skip
    yield cluster
    cluster.shutdown()


def go(nodes, out, **named):
    view = Watch()
    runner = RayRunner(stages="fake_stages", **named)
    return runner(nodes, Store(out / "store"), out, workers=2, view=view), view


@pytest.mark.slow
def test_the_store_is_that_of_the_local_runner(ray, tmp_path):
    nodes = chain_plan("", 0)
    outcome, view = go(nodes, tmp_path / "ray")
    run(nodes, Store(tmp_path / "local" / "store"), tmp_path / "local", workers=2, stages="fake_stages")
    assert outcome.ok, outcome.errors
    assert results(Store(tmp_path / "ray" / "store"), nodes) == expected()
    for node in nodes.nodes:
        there, here = (Store(tmp_path / name / "store").path(node.key) for name in ("ray", "local"))
        files = sorted(p.relative_to(here) for p in here.rglob("*") if p.is_file())
        assert files == sorted(p.relative_to(there) for p in there.rglob("*") if p.is_file())
        assert [f for f in files if (here / f).read_bytes() != (there / f).read_bytes()] == []
    assert view.seen[:2] == [("start", "running"), ("start", "done")], "arms wait for what they start from"
    assert "chain complete" in (tmp_path / "ray" / "logs" / "start.log").read_text()
    again, _ = go(nodes, tmp_path / "ray")
    assert set(again.status.values()) == {StageStatus.CACHED}


@pytest.mark.slow
def test_a_lost_worker_is_begun_again_and_goes_on(ray, tmp_path):
    with an_arm_killed(tmp_path) as (nodes, trace):
        outcome, _ = go(nodes, tmp_path)
    assert outcome.ok, outcome.errors
    assert results(Store(tmp_path / "store"), nodes) == expected()
    assert len(reached(trace, 1, 4)) == 2
    assert len(reached(trace, 1, 3)) == 1, "what its checkpoint has is not done again"


@pytest.mark.slow
def test_failures_notes_and_deaths_are_told_as_by_the_local_runner(ray, tmp_path):
    nodes = plan(
        Node(name="refused", kind="refuse"), Node(name="dies", kind="die"), Node(name="warns", kind="warn"),
        Node(name="after", kind="chain", spec={"steps": 1}, inputs={"x": "refused"}),
    )  # fmt: skip
    outcome, view = go(nodes, tmp_path)
    assert {n: str(s) for n, s in outcome.status.items()} == {
        "refused": "failed", "dies": "failed", "warns": "done", "after": "blocked",
    }  # fmt: skip
    assert outcome.errors["refused"] == "data.jsonl:3: rows are empty; fix: remove them"
    assert outcome.errors["dies"].startswith("the task was lost 3 times")
    assert view.notes == ["3 rows left out"]


@pytest.mark.slow
def test_a_killed_driver_leaves_no_worker_and_the_same_command_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    trace, out = tmp_path / "trace", tmp_path / "out"
    killed_at(6, [1, 2], out, trace, tmp_path / "hold", "ray")
    goes_on_to_the_end(out, trace, "ray")


def test_the_work_of_a_plan_is_no_part_of_its_keys():
    """What runs a stage is not in what it is known by: a store is shared by both runners."""
    from evenhand.plan.plan import build
    from evenhand.spec.read import read_experiment

    experiment = read_experiment(f"{BASE}judge: {{reward: gold, self_test: 0}}\n").value
    served = replace(experiment.runtime, runner="ray", address="auto", resources={"fit": Resources(cpus=2)})
    assert [n.key for n in build(experiment).nodes] == [n.key for n in build(replace(experiment, runtime=served)).nodes]


BASE = (
    "name: x\nmodel: {pretrain: {documents: 8, train: {steps: 2}}}\ndata: {world: quickstart}\narms: {start: {method: start}}\n"
)


@pytest.mark.parametrize(
    ("runtime", "told"),
    [
        ("{address: auto}", "`address` has no effect here"),
        ("{resources: {fit: {cpus: 1}}}", "`resources` has no effect here"),
        ("{runner: ray, resources: {fti: {cpus: 1}}}", "'fti' is no kind of stage and no arm"),
        ("{runner: ray, resources: {start: {memory: -1}}}", "-1 is out of range"),
        ("{runner: ray, resources: {fit: {cpus: 1}, start: {gpus: 0.5}}}", ""),
    ],
)
def test_what_a_file_asks_of_a_cluster(runtime, told, monkeypatch):
    from evenhand.spec import structure_checks
    from evenhand.spec.read import read_experiment

    monkeypatch.setattr(structure_checks.importlib.util, "find_spec", lambda name: name)
    text = f"{BASE}judge: {{reward: gold, self_test: 0}}\nruntime: {runtime}\n"
    if told:
        with pytest.raises(UserError, match=told):
            read_experiment(text)
    else:
        assert read_experiment(text).value.runtime.resources["start"] == Resources(gpus=0.5)
