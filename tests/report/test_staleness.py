"""What page and record say of arms on rollouts of older weights."""

import json

import pytest

import evenhand.report
from evenhand.report.training import overlap
from evenhand.results.record_parts import StalenessSummary
from evenhand.results.rollouts import staleness as summary
from tests.report.given import cells

ROWS = [
    {"step": 1, "staleness": 0.0, "staleness/effective": 1.0, "staleness/kl": 0.0},
    {"step": 2, "staleness": 1.0, "staleness/effective": 0.8, "staleness/kl": 0.02, "staleness/clipped": 0.1},
]


def test_the_record_has_the_means_of_all_steps_that_know():
    found = summary(ROWS, steps=1, proximal="last")
    assert found == StalenessSummary(steps=1, proximal="last", age=0.5, effective=0.9, kl=0.01, clipped=0.1)


def test_a_row_per_late_arm(tmp_path):
    late = {"steps": 4, "proximal": "generator", "age": 3.9, "effective": 0.9, "kl": 0.0123}
    (tmp_path / "results.json").write_text(json.dumps({"arms": {"fresh": {}, "late": {"staleness": late}}}))
    ledger = {"seconds": {"generate": 3.0, "train": 1.0}, "flops_by_phase": {"train": 3.0, "recompute": 1.0}}
    cell = tmp_path / "arms" / "late" / "seed-0"
    cell.mkdir(parents=True)
    (cell / "ledger.json").write_text(json.dumps(ledger))
    (cell / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    _, row = cells(evenhand.report.write(tmp_path).read_text(), "Learned from older samples")
    assert row == ["late", "4", "3.9", "the policy that sampled", "–", "90.0%", "–", "0.0123", "25.0%", "25.0%"]


@pytest.mark.parametrize(
    ("seconds", "share"), [({"generate": 1.0, "score": 1.0, "train": 6.0}, 0.25), ({"train": 2.0}, 0.0), ({}, None)]
)
def test_overlap_saves_the_shorter_of_both(seconds, share):
    assert overlap(seconds) == share
