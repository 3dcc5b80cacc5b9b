"""The grid of training by inference length: what is planned, and what is made of its cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evenhand.errors import UserError
from evenhand.plan.plan import Plan, build
from evenhand.results.fairness import deviations, held_equal
from evenhand.results.length_grid import grid
from evenhand.results.record_parts import MethodGrid
from evenhand.results.run_artifacts import RunArtifacts
from evenhand.spec.read import read_experiment
from evenhand.store.store import Store
from evenhand.train.config import Lengths

TEXT = """
name: lengths
seeds: [0, 1]
data: {world: quickstart}
model: {pretrain: {documents: 10, train: {epochs: 1}}}
lengths: {prompt: 32, completion: 16}
sft: {train: {steps: 1}}
train: {steps: 1}
arms:
  sft: {method: start}
  dpo: {method: dpo}
  short: {method: dpo, lengths: {completion: 8}}
evaluation: {prompts: 4, length_grid: [16, 8, 8]}
"""


def plan(*overrides: str) -> Plan:
    return build(read_experiment(TEXT, overrides).value)


def test_every_arm_answers_under_every_limit_and_the_experiments_own_limit_costs_nothing() -> None:
    made = plan()
    assert list(made.grid) == [8, 16]
    assert made.grid[16].verdicts == made.verdicts
    for arm in ("sft", "dpo", "short"):
        node = made[made.grid[8].generations[arm][1]]
        assert node.spec.setup.lengths == Lengths(prompt=32, completion=8)
        assert node.inputs["policy"] == made.arms[arm][1]
        verdict = made[made.grid[8].verdicts[arm][1]]
        assert verdict.inputs["baseline"] == made.grid[8].generations["sft"][1], "under the same limit"
        assert verdict.spec.setup.lengths.completion == 8
    assert plan("evaluation.length_grid=[]").grid == {}


def test_an_arm_is_trained_under_its_own_limit_and_compared_under_the_experiments() -> None:
    made = plan()
    assert made["arms/short/seed-0"].spec.setup.lengths == Lengths(prompt=32, completion=8)
    assert made["arms/dpo/seed-0"].spec.setup.lengths == Lengths(prompt=32, completion=16)
    reference = made[made["arms/short/seed-0"].inputs["reference"]]
    assert reference.spec.setup.lengths.completion == 8, "reference log-probs of the answers as they are cut"
    assert made[made.generations["short"][0]].spec.setup.lengths.completion == 16
    assert "lengths.completion: 16 (dpo); 8 (short)" in deviations(made.experiment)
    assert any("in the comparison" in fact and "training" not in fact for fact in held_equal(made.experiment)[1:2])


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("arms.sft.lengths.completion=8", "arms.sft.lengths"),
        ("evaluation.length_grid=[0]", "evaluation.length_grid"),
        ("arms.short.lengths.answer=8", "arms.short.lengths"),
    ],
)
def test_limits_that_mean_nothing_are_refused(override: str, where: str) -> None:
    with pytest.raises(UserError) as caught:
        plan(override)
    assert where in str(caught.value)


class Fake(RunArtifacts):
    """Cells by limit: arm -> the share won and the gold score of each of four prompts; one seed fails for `short`."""

    def load(self, node: str, file: str) -> Any:
        limit = 8 if node.startswith("length_grid/8/") else 16
        arm = node.removeprefix("length_grid/8/").split("/")[1]
        wins = {("dpo", 8): 1, ("dpo", 16): 3, ("short", 8): 4, ("short", 16): 2}.get((arm, limit), 2)
        if file == "measured.json":
            return {"length": [limit] * 4, "truncated": [True, False, False, False]}
        return {"outcome": [float(i < wins) for i in range(4)], "gold": [wins / 4 + i for i in range(4)]}

    def has(self, node: str) -> bool:
        return node != "length_grid/8/verdicts/short/seed-1"


def test_cells_are_read_from_verdicts_and_compared_with_the_training_limit() -> None:
    found = grid(Fake(plan(), Store(Path("nowhere")), {}, {}))
    assert found is not None
    rows = {row.arm: row for row in found.rows}
    assert [row.training for row in found.rows] == [None, 16, 8]
    short, long = rows["short"].cells
    assert (short.win_rate, long.win_rate) == (1.0, 0.5)
    assert (short.seeds, long.seeds) == ((0,), (0, 1))
    assert long.change.gold == pytest.approx(2 / 4 - 4 / 4), "of the one seed that has both"
    assert short.change.gold == 0.0
    assert rows["dpo"].cells[0].change.gold == pytest.approx(1 / 4 - 3 / 4)
    assert rows["sft"].cells[0].change is None, "an untouched arm has no training limit"
    assert (long.mean_length, long.truncated) == (16, 0.25)
    assert found.methods["dpo"] == MethodGrid(
        training=(8, 16), inference=(8, 16), mean=((1.0, 0.5), (0.25, 0.75)), best_inference={"8": 8, "16": 16}
    )


def test_without_limits_there_is_no_grid() -> None:
    assert grid(Fake(plan("evaluation.length_grid=[]"), Store(Path("nowhere")), {}, {})) is None
