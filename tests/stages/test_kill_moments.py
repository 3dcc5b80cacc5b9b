"""A training stage killed before every change it makes in its folder: from each it ends with the bytes of one that went through.

The folder is photographed at each moment, and every photograph is gone on from.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evenhand.stages import STAGES, fit
from evenhand.stages.context import StageContext
from evenhand.store.store import Store
from tests.stages.performed import SMALL, Graph
from tests.stages.photographs import photographed

TEXT = (
    f"{SMALL}name: moments"
    + """
train: {steps: 3, prompts_per_step: 4, learning_rate: 1.0e-3, schedule: constant, checkpoint_every: 1, sample_every: 1}
arms:
  start: {method: start}
  kto: {method: kto, train: {keep_checkpoint: best, validate_every: 1, validation_prompts: 4, snapshots: [2]}}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)
KEPT = ("model/model.safetensors", "metrics.jsonl", "samples.jsonl", "selection.json", "snapshots/step-2/model/model.safetensors")
META = {"name": "arm", "versions": {}}


class Moments:
    """An arm in a store, and the photographs of its folder."""

    def __init__(self, folder: Path) -> None:
        self.graph = Graph(folder / "graph", TEXT)
        self.node = self.graph.plan[self.graph.plan.arms["kto"][0]]
        self.inputs = self.graph.inputs(self.node.name)
        self.steps: list[int] = []
        store = Store(folder / "store")
        with photographed(store.partial(self.node.key), folder / "album") as self.taken:
            self.whole = self.made(store)

    def made(self, store: Store) -> Path:
        self.steps = []
        with store.open(self.node.key, META) as out:
            context = StageContext(seed=self.node.seed, inputs=self.inputs, out=out, report=self.told)
            STAGES["fit"](self.node.spec, context)
        return store.path(self.node.key)

    def told(self, done: float, total: float, **shown: object) -> None:
        self.steps += [int(done)] if total else []

    def differing(self, photograph: Path, folder: Path) -> list[str]:
        """What another start makes of a photograph."""
        store = Store(folder)
        shutil.copytree(photograph, store.partial(self.node.key))
        found = self.made(store)
        return [name for name in KEPT if (found / name).read_bytes() != (self.whole / name).read_bytes()]


@pytest.fixture(scope="module")
def moments(tmp_path_factory) -> Moments:
    return Moments(tmp_path_factory.mktemp("moments"))


def test_a_kill_once_all_is_written_trains_nothing_again(moments, tmp_path):
    """Whatever was being tidied up, flushed or noted when it came: all that was paid for is kept."""
    sealed = [p for p in moments.taken if (p / "digests.json").exists() and (p / fit.LEDGER).exists()]
    assert len(sealed) > 5
    for photograph in sealed:
        assert moments.differing(photograph, tmp_path / photograph.name) == []
        assert moments.steps == [], photograph.name


def test_a_kill_while_the_last_files_are_written(moments, tmp_path):
    last = [p for p in moments.taken if (p / "model").exists() and not (p / "digests.json").exists()]
    assert len(last) > 2
    for photograph in last:
        assert moments.differing(photograph, tmp_path / photograph.name) == [], photograph.name


@pytest.mark.slow
def test_a_kill_at_any_moment(moments, tmp_path):
    assert len(moments.taken) > 40
    assert [p.name for p in moments.taken if moments.differing(p, tmp_path / p.name)] == []
