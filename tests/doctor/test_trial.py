"""Checks that train for a few steps: every method passes, and each fault that they are made for is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenhand.doctor import Severity
from evenhand.doctor.examine import Result
from evenhand.methods import METHODS
from evenhand.spec.arms import START
from tests.doctor.patients import Ward

AGAIN = [pytest.param(name, marks=pytest.mark.slow) for name in ("reinforce", "gspo", "online_dpo")]
"""Samples, credits and selections that others have too, with another loss: the battery and the golden curves tell them apart."""
SAMPLES = ("ppo", "rloo", "grpo", "topr_online", "iterative_dpo", "raft", *AGAIN)


def looked(tmp_path: Path, id: str, **arms: dict) -> Result:
    ward = Ward(tmp_path)
    ward.experiment["arms"] = {"base": {"method": START}, **arms}
    return ward.examine(quick=False, only=[id])[id]


def severities(result: Result) -> list[Severity]:
    return [f.severity for f in result.findings]


@pytest.mark.parametrize("method", SAMPLES)
def test_every_method_raises_the_toy_reward(method: str, tmp_path: Path) -> None:
    assert method in METHODS
    result = looked(tmp_path, "G6", arm={"method": method, "reward": "fair"})
    assert severities(result) == [Severity.INFO], [f.seen for f in result.findings]


def test_one_arm_of_each_method_is_tried(tmp_path: Path) -> None:
    arm = {"method": "rloo", "reward": "fair"}
    result = looked(tmp_path, "G6", one=arm, two={**arm, "kl": 0.1}, dpo={"method": "dpo"})
    assert [f.seen.split(" ")[0] for f in result.findings] == ["arms.one"]


def test_a_penalty_too_strong_is_found(tmp_path: Path) -> None:
    result = looked(tmp_path, "G6", arm={"method": "rloo", "reward": "fair", "kl": 1000.0})
    assert severities(result) == [Severity.FAIL]
    assert "which is no rise" in result.findings[0].seen


def test_credit_with_its_sign_lost_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.train.rollouts import CompletionCredit

    monkeypatch.setattr(CompletionCredit, "__call__", lambda self, rollout: rollout.credited(-self.function(rollout.reward)))
    result = looked(tmp_path, "G6", arm={"method": "rloo", "reward": "fair"})
    assert severities(result) == [Severity.FAIL]


ARMS = {"dpo": {"method": "dpo"}, "grpo": {"method": "grpo", "reward": "fair", "completions_per_prompt": 4}}


def test_a_stopped_run_goes_on_exactly(tmp_path: Path) -> None:
    result = looked(tmp_path, "B6", **ARMS)
    assert severities(result) == [Severity.INFO, Severity.INFO]
    assert [f.seen.split(":")[0] for f in result.findings] == ["arms.dpo", "arms.grpo"], "fixed data, and samples"
    assert all("the same bytes as without a stop" in f.seen for f in result.findings)


def test_a_resume_that_begins_the_rows_again_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.train.offline import FixedSource

    real = FixedSource.step

    def counted(self, index):
        self.asked = getattr(self, "asked", -1) + 1
        return real(self, self.asked)

    monkeypatch.setattr(FixedSource, "step", counted)
    (finding,) = looked(tmp_path, "B6", dpo=ARMS["dpo"]).findings
    assert finding.severity is Severity.FAIL
    assert "not the same as without a stop" in finding.seen


def test_a_resume_without_the_optimizers_moments_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.train.optim import AdamW

    monkeypatch.setattr(AdamW, "places", lambda self, names: {})
    result = looked(tmp_path, "B6", **ARMS)
    assert severities(result) == [Severity.FAIL, Severity.FAIL]
    assert result.findings[0].examples == ("model/model.safetensors", "metrics.jsonl")
