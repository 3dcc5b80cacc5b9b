"""What page and record say of arms on rollouts of older weights."""

import pytest

from evenhand.report import style
from evenhand.report.staleness import overlap, staleness_rows
from evenhand.results.record import ArmResult, Results
from evenhand.results.record_parts import StalenessSummary
from evenhand.results.staleness import summary

ROWS = [
    {"step": 1, "staleness": 0.0, "staleness/effective": 1.0, "staleness/kl": 0.0},
    {"step": 2, "staleness": 1.0, "staleness/effective": 0.8, "staleness/kl": 0.02, "staleness/clipped": 0.1},
]


def test_the_record_has_the_means_of_all_steps_that_know():
    found = summary(ROWS, steps=1, proximal="last")
    assert found == StalenessSummary(steps=1, proximal="last", age=0.5, effective=0.9, kl=0.01, clipped=0.1)


def test_a_row_per_late_arm():
    late = StalenessSummary(steps=4, proximal="generator", age=3.9, effective=0.9, kl=0.0123)
    results = Results(arms={"fresh": ArmResult(), "late": ArmResult(staleness=late)})
    looks = style.arm_styles(["fresh", "late"], "fresh")
    ledgers = {"late": {"0": {"seconds": {"generate": 3.0, "train": 1.0}, "flops_by_phase": {"train": 3.0, "recompute": 1.0}}}}
    (row,) = staleness_rows(results, looks, ledgers)
    told = (row.arm, row.steps, row.age, row.clip, row.importance, row.effective, row.clipped, row.kl, row.reread, row.saved)
    assert told == ("late", 4, "3.9", "the policy that sampled", "–", "90.0%", "–", "0.0123", "25.0%", "25.0%")


@pytest.mark.parametrize(
    ("seconds", "share"), [({"generate": 1.0, "score": 1.0, "train": 6.0}, 0.25), ({"train": 2.0}, 0.0), ({}, None)]
)
def test_overlap_saves_the_shorter_of_both(seconds, share):
    assert overlap(seconds) == share
