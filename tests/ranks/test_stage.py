"""Training stages on two ranks: what they leave is what one process leaves, and a rank that dies ends them with one message."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from evenhand.errors import UserError
from evenhand.models.load import load_policy
from evenhand.plan import plan
from evenhand.spec.read import read_experiment
from evenhand.stages import fit
from evenhand.stages.context import StageContext
from evenhand.store.pointer import model_path
from evenhand.train import checkpoint
from evenhand.train.ranks import Ranks
from tests.ranks.two import on_ranks
from tests.stages.performed import SMALL, Graph

TEXT = (
    f"{SMALL}name: shared"
    + """
train: {steps: 5, prompts_per_step: 5, learning_rate: 2.0e-4, schedule: constant, checkpoint_every: 1, sample_every: 2}
arms:
  start: {method: start}
  dpo: {method: dpo, train: {evaluate_every: 2, adapter: {form: dora, rank: 2, quantize: nf4}}}
  kto: {method: kto, train: {keep_checkpoint: best, validate_every: 2, validation_prompts: 6, snapshots: [3]}}
  rounds: {method: iterative_dpo, reward: gold, completions_per_prompt: 4, partner: previous, hybrid: true}
  ppo: {method: ppo, reward: gold, completions_per_prompt: 2, updates: 2, staleness: {steps: 3}}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)
ARMS = ("dpo", "kto", "rounds", "ppo")
METRICS = 1e-3
"""Relative, of fp32 metrics over five steps: Adam magnifies rounding where a gradient is near zero."""
WEIGHTS = 4e-5
"""Of weights that five steps of 2e-4 have moved."""


class Shared(Graph):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, TEXT)


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Shared:
    made = Shared(tmp_path_factory.mktemp("one"))
    for arm in ARMS:
        made.arm(arm)
    return made


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def shared(request, graph, tmp_path_factory) -> Path:
    """The arms on two ranks, by one start of them."""
    out = tmp_path_factory.mktemp(request.param)
    on_ranks(partial(train, jobs(graph, ARMS), out), 2, out, shard=request.param)
    return out


def jobs(graph: Shared, arms: tuple[str, ...]) -> dict[str, tuple[Any, int, Mapping[str, Path]]]:
    """What a training stage is given, by arm."""
    nodes = {arm: graph.plan[graph.plan.arms[arm][0]] for arm in arms}
    return {
        arm: (node.spec, node.seed, {role: graph.done[other] for role, other in node.inputs.items()})
        for arm, node in nodes.items()
    }


def train(given: Mapping[str, Any], out: Path, ranks: Ranks, scratch: Path, report: Any) -> None:
    for arm, (spec, seed, inputs) in given.items():
        folder = (out if ranks.first else scratch) / arm
        folder.mkdir(exist_ok=True)
        fit.run(spec, StageContext(seed=seed, inputs=inputs, out=folder, report=report, ranks=ranks))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("arm", ARMS)
def test_two_ranks_leave_what_one_process_leaves(graph, shared, arm):
    one, many = graph.arm(arm), shared / arm
    assert {p.name for p in one.rglob("*")} - {"digests.json"} == {p.name for p in many.rglob("*")} - {"digests.json"}
    for a, b in zip(rows(one / "metrics.jsonl"), rows(many / "metrics.jsonl"), strict=True):
        assert a == pytest.approx(b, rel=METRICS, abs=METRICS)
    start = graph.done[graph.plan[graph.plan.arms[arm][0]].inputs["start"]]
    base = {"base": str(model_path(start))} if arm == "dpo" else {}  # whose adapter is all that is kept
    a, b = (load_policy(model_path(f), dtype="float32", device="cpu", **base).hf.state_dict() for f in (one, many))
    assert a.keys() == b.keys()
    assert max(float((a[n] - b[n]).abs().max()) for n in a) < WEIGHTS


@pytest.mark.parametrize("arm", ARMS)
def test_what_is_counted_is_what_was_done_once(graph, shared, arm):
    """Tokens, calls and operations of all ranks together; passes that only keep step with other ranks are counted nowhere."""
    a, b = (json.loads((folder / "ledger.json").read_text()) for folder in (graph.arm(arm), shared / arm))
    assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}


def die(given: Mapping[str, Any], out: Path, ranks: Ranks, scratch: Path, report: Any) -> None:
    """The second rank is killed in step 3: both have checkpoints of step 2."""

    def told(done: float, total: float, **shown: Any) -> None:
        if not ranks.first and done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    train(given, out, ranks, scratch, told)


def fail(given: Mapping[str, Any], out: Path, ranks: Ranks, scratch: Path, report: Any) -> None:
    if not ranks.first:
        raise UserError("the reward is of no use", where="rank 1")
    train(given, out, ranks, scratch, report)


def worker(given: Mapping[str, Any], out: Path, shard: str) -> None:
    on_ranks(partial(lose_worker, os.getpid(), given, out), 2, out, shard=shard)


def lose_worker(number: int, given: Mapping[str, Any], out: Path, ranks: Ranks, scratch: Path, report: Any) -> None:
    """The process that started the ranks is killed in step 4, and they are left waiting for each other."""
    living = open(out / "living")  # noqa: SIM115 (held as long as the process lives)
    fcntl.flock(living, fcntl.LOCK_SH)

    def told(done: float, total: float, **shown: Any) -> None:
        if done == 4:
            if not ranks.first:
                os.kill(number, signal.SIGKILL)
            signal.pause()

    train(given, out, ranks, scratch, told)


def test_a_killed_rank_ends_the_stage_with_one_message_and_it_goes_on(graph, shared, tmp_path):
    """So it does after its worker was killed, whose ranks end by themselves."""
    shard, given = ("fsdp" if shared.name.startswith("fsdp") else "ddp"), jobs(graph, ("ppo",))
    with pytest.raises(UserError, match=r"rank 1 of 2 was killed by SIGKILL.*\n.*all 2 ranks.*\n.*same command again"):
        on_ranks(partial(die, given, tmp_path), 2, tmp_path, shard=shard)
    assert checkpoint.latest(tmp_path / "ppo") is not None
    (tmp_path / "living").touch()
    started = multiprocessing.get_context("forkserver").Process(target=worker, args=(given, tmp_path, shard))
    started.start()
    started.join()
    assert started.exitcode == -signal.SIGKILL
    with open(tmp_path / "living", "a") as living:
        fcntl.flock(living, fcntl.LOCK_EX)  # once both ranks have ended
    on_ranks(partial(train, given, tmp_path), 2, tmp_path, shard=shard)
    for name in ("model/model.safetensors", "metrics.jsonl", "samples.jsonl"):
        assert (tmp_path / "ppo" / name).read_bytes() == (shared / "ppo" / name).read_bytes()


def test_the_message_is_of_the_rank_that_failed_first(graph, tmp_path):
    with pytest.raises(UserError, match="rank 1: the reward is of no use"):
        on_ranks(partial(fail, jobs(graph, ("ppo",)), tmp_path), 2, tmp_path)


def test_ranks_are_in_the_keys_of_training_alone():
    """One process has the keys it always had, however weights would be held; two ranks have other ones, and so what follows."""

    def keys(**runtime: Any) -> dict[str, str]:
        return {n.name: n.key for n in plan.build(read_experiment({**read_text(), "runtime": runtime}).value).nodes}

    one, two, spread = keys(), keys(ranks=2), keys(ranks=2, shard="fsdp")
    assert keys(ranks=1, shard="fsdp") == one
    same = {name for name in one if one[name] == two[name]}
    assert same
    assert not any(name.startswith(("base", "arms/", "generations/")) for name in same)
    assert {name for name in two if two[name] == spread[name]} == same


def read_text() -> dict[str, Any]:
    return yaml.safe_load(TEXT)
