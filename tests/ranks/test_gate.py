"""A gate that two ranks train is the gate that one process trains, and a kill on the way changes no byte of it."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from evenhand.errors import UserError
from evenhand.models.artifacts import NORMALISATION_FILE
from evenhand.models.gate import GATE_FOLDER
from evenhand.plan.plan import build
from evenhand.spec.read import read_experiment
from evenhand.stages import fit
from evenhand.stages.context import StageContext
from evenhand.stages.fit import FitSpec
from evenhand.train import checkpoint
from evenhand.train.ranks import Ranks
from tests.ranks.two import on_ranks
from tests.stages.performed import perform
from tests.stages.test_reward_heads import experiment, ratings

WEIGHTS = 4e-5
Job = tuple[FitSpec, int, dict[str, Path]]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """What the gate's stage is given; all before it is made in one process."""
    raw = experiment(ratings(tmp_path_factory.mktemp("rows") / "rated.jsonl", 24))
    raw["reward_models"]["armo"]["train"] = {**raw["reward_models"]["armo"]["train"], "steps": 4, "checkpoint_every": 1}
    plan = build(read_experiment(raw).value)
    folders: dict[str, Path] = {}
    wanted = next(n for n in plan.nodes if n.name.startswith("reward_models/armo/seed"))
    needed = {wanted.name}
    for node in reversed(plan.nodes):
        needed |= set(node.inputs.values()) if node.name in needed else set()
    for node in plan.nodes:
        if node.name in needed - {wanted.name}:
            inputs = {role: folders[name] for role, name in node.inputs.items()}
            folders[node.name] = perform(node.kind, node.spec, inputs, tmp_path_factory.mktemp("node"), seed=node.seed)
    return wanted.spec, wanted.seed, {role: folders[name] for role, name in wanted.inputs.items()}


def train(given: Job, out: Path, ranks: Ranks, scratch: Path, report: Any) -> None:
    spec, seed, inputs = given
    fit.run(spec, StageContext(seed=seed, inputs=inputs, out=out if ranks.first else scratch, report=report, ranks=ranks))


def die(given: Job, out: Path, ranks: Ranks, scratch: Path, report: Any) -> None:
    def told(done: float, total: float, **shown: Any) -> None:
        if not ranks.first and done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    train(given, out, ranks, scratch, told)


def gate(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model" / GATE_FOLDER / "model.safetensors")


@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_a_gate_on_two_ranks(job: Job, tmp_path: Path, shard: str) -> None:
    spec, seed, inputs = job
    one = perform("fit", spec, inputs, tmp_path / "one", seed=seed)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    on_ranks(partial(train, job, whole), 2, tmp_path, shard=shard)
    a, b = gate(one), gate(whole)
    assert a.keys() == b.keys()
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < WEIGHTS
    scale, its_own = (json.loads((folder / "model" / NORMALISATION_FILE).read_text()) for folder in (one, whole))
    assert scale == pytest.approx(its_own, rel=1e-3), "read off by all ranks together"
    for mine, theirs in zip(rows(one), rows(whole), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-3)
    with pytest.raises(UserError, match="was killed by SIGKILL"):
        on_ranks(partial(die, job, killed), 2, tmp_path, shard=shard)
    assert checkpoint.latest(killed) is not None
    on_ranks(partial(train, job, killed), 2, tmp_path, shard=shard)
    place = Path("model") / GATE_FOLDER / "model.safetensors"
    assert (killed / place).read_bytes() == (whole / place).read_bytes()


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
