"""A run that torchrun has started leaves what the runner's own ranks leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from evenhand.errors import UserError
from evenhand.runner.torchrun import Launch
from tests.stages.test_validate import SMALL


def test_a_process_knows_its_place(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert Launch.here() is None
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "1"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert Launch.here() == Launch(1, 4)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Launch.here() is None


def test_another_number_of_ranks_than_the_experiment_asks_for_is_refused():
    Launch(0, 2).check(2)
    with pytest.raises(UserError, match=r"add runtime\.ranks=2"):
        Launch(0, 2).check(1)


TEXT = (
    f"{SMALL}name: launched"
    + """
train: {steps: 2, prompts_per_step: 4, tokens_per_microbatch: 64}
runtime: {ranks: 2}
arms:
  start: {method: start}
  dpo: {method: dpo}
evaluation: {prompts: 2, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)


def weights(run: Path) -> dict:
    return load_file(run / "arms" / "dpo" / "seed-0" / "model" / "model.safetensors")


@pytest.mark.slow
def test_torchrun_and_the_runner_leave_the_same_weights(tmp_path):
    file = tmp_path / "launched.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(TEXT)))
    command = ["-m", "evenhand.cli", "run", str(file), "--unchecked", "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launched, *command, "--out", str(tmp_path / "a")], check=True, env=environment, timeout=600)
    subprocess.run([sys.executable, *command, "--out", str(tmp_path / "b")], check=True, env=environment, timeout=600)
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert a.keys() == b.keys()
    assert all((a[name] == b[name]).all() for name in a)
