"""Weights on the way are judged like arms, pass@k comes from several answers, and neither trains anything again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evenhand.errors import UserError
from evenhand.plan.plan import build
from evenhand.results.files import load
from evenhand.run_experiment import execute, prepare
from evenhand.spec.read import read_experiment

GIVEN: dict[str, Any] = {
    "name": "way",
    "data": {"world": "arithmetic", "sizes": {"demonstrations": 40, "preferences": 16, "prompts": 12, "heldout_prompts": 8}},
    "model": {"pretrain": {"documents": 20, "train": {"steps": 1}}},
    "sft": {"train": {"steps": 2, "prompts_per_step": 4}},
    "lengths": {"prompt": 32, "completion": 8},
    "train": {"steps": 4, "prompts_per_step": 2},
    "arms": {"sft": {"method": "start"}, "dpo": {"method": "dpo", "train": {"snapshots": [1, 3]}}},
    "judge": {"reward": "gold", "self_test": 0},
    "evaluation": {"prompts": 6, "pass_at": [1, 2], "frontier": False},
    "runtime": {"device": "cpu"},
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("way")
    outcome, found = execute(prepare(GIVEN, out=out), workers=0)
    assert outcome.ok, outcome.errors
    assert found is not None
    return out


def test_the_curve_ends_with_the_arm_itself(out: Path) -> None:
    found = load(out)
    points = found.over_training["dpo"]
    assert [(p.step, p.last) for p in points] == [(1, False), (3, False), (4, True)]
    assert points[-1].win_rate == found.arms["dpo"].win_rate
    assert all(p.ci95 is not None and p.kl is not None and p.seeds == (0,) for p in points)
    page = (out / "report.html").read_text() if (out / "report.html").exists() else _page(out)
    assert 'id="over-training"' in page
    assert "pass@2" in page


def _page(out: Path) -> str:
    from evenhand.report import write

    return Path(write(out)).read_text()


def test_pass_rates_are_those_of_the_scored_answers(out: Path) -> None:
    plan = prepare(GIVEN, out=out)
    node = plan.plan[plan.plan.passes["dpo"][0]]
    gold = json.loads((plan.store.path(node.key) / "scores.json").read_text())["gold"]
    assert [len(row) for row in gold] == [4] * 6
    found = {rate.k: rate for rate in load(out).arms["dpo"].pass_at}
    assert found[1].rate == pytest.approx(sum(map(sum, gold)) / 24)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    assert found[2].rate == pytest.approx(sum(max(row[i], row[j]) for row in gold for i, j in pairs) / (6 * len(pairs)))
    assert (found[1].ci95 is not None, found[1].answers) == (True, 4)


def keys(**evaluation: Any) -> dict[str, str]:
    changed = {**GIVEN, "evaluation": {**GIVEN["evaluation"], **evaluation}}
    return {n.name: n.key for n in build(read_experiment(changed).value).nodes}


def test_asking_for_more_answers_trains_nothing_again() -> None:
    before, after = keys(), keys(pass_at=[1, 8], pass_samples=16)
    assert {n for n in before if before[n] != after[n]} == {n for n in before if n.startswith("pass/")}


def test_snapshots_train_their_own_arm_again_and_no_other() -> None:
    plain = {**GIVEN, "arms": {**GIVEN["arms"], "dpo": {"method": "dpo"}}}
    before = {n.name: n.key for n in build(read_experiment(plain).value).nodes}
    after = keys()
    touched = {n for n in before if before[n] != after[n]}
    assert {n.split("/")[1] for n in touched} == {"dpo"}
    assert {n for n in after if n.startswith("over_training/")} == {
        f"over_training/dpo/step-{step}/{what}/seed-0" for step in (1, 3) for what in ("answers", "verdicts")
    }


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"method": "dpo", "train": {"snapshots": [4]}}, "no weights of step 4 on the way"),
        ({"method": "dpo", "train": {"snapshots": [0]}}, "no weights of step 0 on the way"),
        ({"method": "dpo", "train": {"snapshots": "rounds"}}, "dpo has no rounds"),
    ],
)
def test_steps_that_are_not_on_the_way_are_refused(arm: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_experiment({**GIVEN, "arms": {"sft": {"method": "start"}, "dpo": arm}})


@pytest.mark.parametrize(
    ("evaluation", "judge", "said"),
    [
        ({"pass_at": [8], "pass_samples": 4}, GIVEN["judge"], "pass@8 from 4 answers"),
        ({"pass_at": [0]}, GIVEN["judge"], "pass@0"),
        ({"pass_at": [1]}, {"kind": "llm", "model": "m", "price": {"input": 1, "output": 1}}, "right or wrong of one answer"),
    ],
)
def test_pass_rates_that_cannot_be_had_are_refused(evaluation: dict[str, Any], judge: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_experiment({**GIVEN, "evaluation": evaluation, "judge": judge})


def test_rounds_are_snapshots_by_their_name() -> None:
    arm = {"method": "iterative_dpo", "rounds": 2, "reward": "gold", "train": {"snapshots": "rounds"}}
    plan = build(read_experiment({**GIVEN, "arms": {"sft": {"method": "start"}, "it": arm}}).value)
    assert list(plan.snapshots) == [2]
