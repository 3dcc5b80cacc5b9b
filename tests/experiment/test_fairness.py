"""What the page says was held equal."""

from __future__ import annotations

import pytest

from evenhand.results.fairness import held_equal
from evenhand.spec.read import read_experiment

GIVEN = {
    "name": "t",
    "baseline": "sft",
    "data": {"world": "quickstart"},
    "model": {"pretrain": {"documents": 10, "train": {"steps": 1}}},
    "sft": {"train": {"steps": 1}},
    "train": {"steps": 2, "learning_rate": 1e-4},
    "arms": {"sft": {"method": "start"}, "dpo": {"method": "dpo"}},
}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("name=t", "Every arm and seed starts from the same `sft` weights (one draw of them, for which all intervals hold)"),
        ("sft.per_seed=true", "Every arm of a seed starts from that seed's `sft` weights"),
        ("start=base", "Every arm starts from the base model"),
    ],
)
def test_a_start_that_all_seeds_share_is_said_to_be_one_draw(override: str, said: str) -> None:
    assert held_equal(read_experiment(GIVEN, [override]).value)[0].startswith(said)
