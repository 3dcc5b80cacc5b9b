"""What arms cost: units, ratios, and the device that paid."""

from __future__ import annotations

from typing import Any

import pytest

from evenhand.report.budget import budget, device, steps_per_second
from tests.report.given import summarise

ARMS = {
    "sft": {"ledger": {"tokens_generated": 0, "tokens_trained": 0, "reward_calls": 0, "flops": 0}},
    "dpo": {"win_rate": 0.6, "seeds": [0, 1], "judge_cost_usd": 0.5},
    "rloo": {"win_rate": 0.7, "seeds": [0, 1], "judge_cost_usd": 0.7},
}
LEDGERS: dict[str, dict[str, dict[str, Any]]] = {
    "dpo": {"0": {"tokens_trained": 100, "tokens_generated": 0, "flops": 6.0, "seconds": {"train": 10.0, "load": 2.0}}},
    "rloo": {
        str(s): {"tokens_trained": 98 + 4 * s, "tokens_generated": 50, "flops": 12.0, "seconds": {"train": 20.0, "generate": 4.0}}
        for s in (0, 1)
    },
}


def test_every_unit_has_its_column_and_says_whether_arms_were_equal_in_it() -> None:
    found = budget(summarise({"baseline": "sft", "arms": ARMS}), LEDGERS, {"accelerators": [], "threads": 2})
    assert found is not None
    assert [unit.title for unit in found.units] == [
        "Tokens generated", "Tokens trained on", "Reward calls", "FLOPs", "Time", "CPU-seconds, at most", "Judging, dollars",
    ]  # fmt: skip
    assert [arm.name for arm, _, _ in found.rows] == ["sft", "rloo", "dpo"]
    rloo, dpo = (cells for _, _, cells in found.rows[1:])
    assert rloo == ("50", "100", "–", "12", "24 s", "48", "0.3500")
    assert dpo == ("0", "100", "–", "6", "12 s", "24", "0.2500")
    assert found.ratios == ("not all", "equal", "–", "x 2.0", "x 2.0", "x 2.0", "x 1.4")


def test_speed_is_steps_over_the_seconds_that_they_took() -> None:
    """Ten steps in 10 s of training, loading left out; of RLOO 12 and 24 in 24 s of training and sampling."""
    curves = {"dpo": {"0": [{"step": 5}, {"step": 10}]}, "rloo": {"0": [{"step": 12}], "1": [{"step": 24}]}}
    assert steps_per_second(curves, LEDGERS) == {"dpo": 1.0, "rloo": 0.75}
    found = budget(summarise({"baseline": "sft", "arms": ARMS}), LEDGERS, {}, curves)
    assert found is not None
    place = [unit.title for unit in found.units].index("Steps per second")
    assert [cells[place] for _, _, cells in found.rows] == ["–", "0.75", "1.00"]
    assert found.ratios[place] == "–", "no budget: nothing to hold equal"


@pytest.mark.parametrize(
    ("experiment", "unit", "per_second"),
    [
        ({"accelerators": ["0", "1"], "threads": 4}, "GPU-seconds", 1),
        ({"accelerators": ["0"], "threads": 4, "effective": {"runtime": {"device": "cpu"}}}, "CPU-seconds, at most", 4),
        ({"accelerators": []}, "CPU-seconds, at most", 1),
    ],
)
def test_the_device_is_the_one_that_did_the_work(experiment: dict[str, Any], unit: str, per_second: int) -> None:
    found = device(experiment)
    assert found is not None
    assert (found.unit.title, found.per_second) == (unit, per_second)


def test_a_run_that_did_not_record_its_devices_claims_none() -> None:
    assert device({"threads": 1}) is None
    assert budget(summarise({"arms": {}}), {}, {}) is None
