"""An experiment whose networks are trained by two ranks, killed at every kind of its processes: the same bytes at the end."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from tests.ranks.chain import LEFT, STEPS, chain
from tests.ranks.test_stage import ARMS
from tests.stages import kill_matrix
from tests.stages.kill_matrix import Figures, Killer, matrix, reference, written

FEW = """
name: killed
baseline: start
data: {world: quickstart, sizes: {demonstrations: 16, preferences: 16, prompts: 8, heldout_preferences: 8}}
model: {pretrain: {documents: 16, train: {steps: 1, prompts_per_step: 8}}}
lengths: {prompt: 32, completion: 8}
train: {steps: 6, prompts_per_step: 4, learning_rate: 1.0e-3, checkpoint_every: 1}
arms:
  start: {method: start}
  grpo: {method: grpo, reward: gold, completions_per_prompt: 2, updates: 2}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
runtime: {workers: 2, threads: 1, ranks: 2, shard: ddp}
"""
KINDS = ("rank", "worker", "main")


class InTurn(Killer):
    """Kills a rank, then a worker of ranks, then the main process, each once its stage has a checkpoint."""

    def look(self, run: subprocess.Popen[bytes], watched: object) -> None:
        for lock in self.store_paths("*.lock"):
            folder = self.out / "store" / f"{lock.name.removesuffix('.lock')}.partial"
            if run.poll() is None and not self.enough and any(folder.glob("checkpoint-*")):
                kind = KINDS[self.figures.killed]
                if kind == "rank":
                    self.kill_rank(lock, folder)
                elif kind == "worker":
                    self.kill_worker(lock, folder)
                else:
                    self.kill_main(run)

    def damage(self) -> None:
        """Nothing: it is for the matrix."""


@pytest.mark.slow
def test_a_rank_a_worker_and_the_main_process_may_die(tmp_path: Path) -> None:
    whole, figures = reference(tmp_path / "whole", FEW), Figures()
    (tmp_path / "killed").mkdir()
    InTurn(tmp_path / "killed", random.Random(0), figures, len(KINDS), FEW).until_whole()
    kinds = [kind.split(" ")[0] for kind in figures.kills]
    assert kinds == list(KINDS), (tmp_path / "killed" / "said").read_text()
    found = dict(written(tmp_path / "killed" / "run"))
    assert sum(name.endswith("model.safetensors") for name in whole) == 2
    assert found == whole


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
@pytest.mark.parametrize("arm", ARMS)
def test_a_rank_may_die_at_every_step(tmp_path: Path, arm: str, shard: str) -> None:
    kills, differing = chain(arm, shard, tmp_path)
    assert kills == len(STEPS)
    assert differing == [], f"of {LEFT}"


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_kills_and_damage_change_no_byte_of_what_ranks_train(tmp_path: Path, shard: str) -> None:
    found = matrix(15, folder=tmp_path, at_a_time=15, text=kill_matrix.ON_RANKS.replace("SHARD", shard))
    assert found.killed >= 15
    assert found.differing == []
