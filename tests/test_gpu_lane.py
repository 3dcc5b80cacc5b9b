"""What a GPU is to be measured by runs from end to end here, on tiny shapes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks import gpu_lane, page, shapes
from tests.conftest import ROOT

REPORT = """<testsuites><testsuite>
<testcase name="test_a_step[cuda-dpo]"><properties><property name="error" value="2e-07 of 1e-05"/></properties></testcase>
<testcase name="test_draws[cuda-plain]"><failure message="assert 0.5 &lt; 0.1&#10;more">where</failure></testcase>
<testcase name="test_a_step[cuda-sft]"><properties><property name="error" value="5e-06 of 1e-05"/></properties></testcase>
</testsuite></testsuites>"""


def test_a_report_of_tests_becomes_a_table(tmp_path):
    assert gpu_lane.cases(tmp_path / "cut.xml") == []
    (tmp_path / "tests.xml").write_text(REPORT)
    shown = page.checks({"cases": gpu_lane.cases(tmp_path / "tests.xml"), "problem": "not ended after 9 s"})
    assert "| a step | 2 of 2 | 50% |" in shown
    assert "| draws | 0 of 1 |  |" in shown
    assert shown.endswith("- not ended after 9 s\n- `test_draws[cuda-plain]`: failure. assert 0.5 < 0.1")


def test_a_command_that_hangs_is_ended_and_said(tmp_path):
    lane = gpu_lane.Lane(device="cpu", tiny=True, out=tmp_path, end=0.0)
    (tmp_path / "logs").mkdir()
    begun = [gpu_lane.started(lane, name, [sys.executable, "-c", code]) for name, code in (("a", "input()"), ("b", "1 / 0"))]
    assert gpu_lane.ended(begun[1], 60) == "ended with exit code 1, see its log"
    assert gpu_lane.ended(begun[0], 0.0) in ("not ended after 0 s", "ended with exit code 1, see its log")
    assert "ZeroDivisionError" in (tmp_path / "logs" / "b.log").read_text()


def test_both_sizes_and_every_kind_are_measured_and_make_knows_the_lane():
    assert {(t.model.label, t.kind) for t in shapes.GPU.training} == {
        (size, kind) for size in ("0.5B", "1.5B") for kind in ("dpo", "sft", "reward", "grpo")
    }
    assert round((shapes.QWEN_1_5B.body + shapes.QWEN_1_5B.vocab * shapes.QWEN_1_5B.width) / 1e9, 2) == 1.54
    assert "-m benchmarks.gpu_lane" in (ROOT / "Makefile").read_text()


@pytest.mark.slow
def test_the_lane_runs_from_end_to_end(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu_lane", "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    found = json.loads((tmp_path / "benchmarks.json").read_text())["cpu"]
    assert {c["outcome"] for c in found["checks"]["cases"]} == {"passed"}
    assert found["quickstart"]["contrasts"]
    assert found["quickstart"]["problems"] == {"cpu": ""}
    assert [r["kind"] for r in found["training"]] == ["dpo", "sft", "reward", "grpo", "sft", "reward"]
    rows = [*found["training"], *found["sampling"], *found["log_probs"]]
    assert all("median" in next(iter(row["sides"].values())) for row in rows), "our own side, whether or not TRL is installed"
    assert (tmp_path / "benchmarks.md").read_text().startswith("# Beside TRL")
