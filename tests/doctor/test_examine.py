"""How checks are registered, run, waived and told."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from evenhand import run_experiment
from evenhand.doctor import CHECKS, Check, Finding, Severity, examine
from evenhand.doctor.examine import apply
from evenhand.doctor.opened import Unavailable
from evenhand.doctor.registry import SECTIONS, check, fail
from evenhand.doctor.render import coloured, show
from evenhand.errors import UserError
from evenhand.results.record import Waived
from evenhand.run_experiment import prepare
from tests.doctor.patients import Ward


def told(diagnosis, **options) -> str:
    out = io.StringIO()
    show(diagnosis, Console(file=out, width=200), **options)
    return out.getvalue()


@pytest.fixture
def leaky(tmp_path: Path) -> Ward:
    """An experiment that is evaluated on its training prompts."""
    ward = Ward(tmp_path)
    ward.experiment["data"]["heldout_prompts"] = {"path": str(ward.folder / "pairs.jsonl"), "use": "prompts"}
    return ward


def test_every_check_says_why_and_how() -> None:
    assert len(CHECKS) >= 45
    for id, one in CHECKS.items():
        assert id == one.id
        assert one.section in SECTIONS.values()
        assert len(one.why) > 20
        assert len(one.fix) > 10
    assert {c.section for c in CHECKS.values()} == set(SECTIONS.values())


def test_an_id_is_taken_once() -> None:
    with pytest.raises(ValueError, match="two checks are called D1"):
        check("D1", "again", why="", fix="")(lambda patient: iter(()))


def test_a_failure_blocks_unless_waived_with_a_reason(leaky: Ward) -> None:
    assert [r.check.id for r in leaky.examine().failed] == ["D17"]
    leaky.experiment["doctor"] = {"waive": {"D17": "a test of memory is what is wanted"}}
    run = prepare(str(leaky.write()), [], leaky.folder / "out")
    diagnosis = examine(run, quick=True)
    assert diagnosis.ok
    assert diagnosis["D17"].worst() is Severity.FAIL, "it is still said"
    assert "waived: a test of memory" in told(diagnosis)
    assert run_experiment.waived(run) == (Waived(check="D17", reason="a test of memory is what is wanted"),)
    assert run_experiment.record(run)["waived"] == run_experiment.waived(run)


@pytest.mark.parametrize(("waive", "words"), [({"D71": "why not"}, "there is no check 'D71'"), ({"D17": " "}, "needs a reason")])
def test_a_waiver_names_a_check_and_a_reason(waive: dict, words: str, leaky: Ward) -> None:
    leaky.experiment["doctor"] = {"waive": waive}
    with pytest.raises(UserError, match=words):
        leaky.examine()


WORLD = {
    "name": "made_to_order", "seeds": [0], "judge": {"reward": "gold"}, "evaluation": {"prompts": 30},
    "model": {"pretrain": {"documents": 8, "train": {"epochs": 1}}}, "lengths": {"prompt": 32, "completion": 16},
    "train": {"steps": 600, "prompts_per_step": 32},
    "data": {"world": "quickstart", "sizes": {"demonstrations": 8, "preferences": 9600, "prompts": 30, "heldout_preferences": 8}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (
            {"arms": {"more": {"method": "sft", "data": "many"}}, "splits": {"many": {"rows": "demonstrations", "count": 9600}}},
            [],
        ),
        (
            {"arms": {"more": {"method": "sft", "data": "few"}}, "splits": {"few": {"rows": "demonstrations", "count": 300}}},
            ["arms.more: every row is seen 64 times"],
        ),
        ({"arms": {"dpo": {"method": "dpo"}}}, []),
    ],
)
def test_rows_are_counted_as_the_run_will_have_them_not_as_they_are_looked_at(change, seen, tmp_path: Path) -> None:
    run = prepare(WORLD | {"initial_policy": "base", "arms": {"base": {"method": "start"}}} | change, [], tmp_path / "out")
    assert [f.seen for f in examine(run, quick=True, only=["D15"])["D15"].findings] == seen


def test_a_judges_share_of_a_worlds_pairs_is_counted_in_full(tmp_path: Path) -> None:
    judged = {"data": {**WORLD["data"], "judge_share": 0.25}, "arms": {"base": {"method": "start"}}, "initial_policy": "base"}
    models = {"reward_models": {"judge_model": {"data": "judge_preferences", "train": {"steps": 600, "prompts_per_step": 80}}}}
    run = prepare(WORLD | judged | models | {"judge": {"reward": "judge_model"}}, [], tmp_path / "out")
    assert examine(run, quick=True, only=["D15"])["D15"].findings == (), "20 times 2,400 rows, not 750 times the 64 looked at"


def test_what_cannot_be_looked_at_is_said_not_hidden() -> None:
    def look(patient):
        raise Unavailable("there is no model")
        yield

    one = Check(id="D1", title="t", why="w", fix="f", quick=True, look=look)
    result = apply(one, SimpleNamespace())
    assert result.skipped == "there is no model"
    assert not result.blocks


def test_a_users_error_inside_a_check_is_a_failure_in_its_words() -> None:
    def look(patient):
        yield Finding(severity=Severity.INFO, seen="so far so good")
        raise UserError("line 3 is bad", where="a.jsonl:3", fix="mend it")

    result = apply(Check(id="D1", title="t", why="w", fix="f", quick=True, look=look), SimpleNamespace())
    assert [f.seen for f in result.findings] == ["so far so good", "a.jsonl:3: line 3 is bad"]
    assert result.findings[1].fix == "mend it"
    assert result.blocks


def test_a_bug_in_a_check_is_not_swallowed() -> None:
    def look(patient):
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        apply(Check(id="D1", title="t", why="w", fix="f", quick=True, look=look), SimpleNamespace())


def test_examples_are_at_most_three() -> None:
    assert fail("x", "1", "2", "3", "4").examples == ("1", "2", "3")


def test_it_tells_severity_id_count_why_and_fix(leaky: Ward) -> None:
    text = told(leaky.examine())
    assert re.search(r"FAIL D17 \d+ of 30 \(\d+%\) prompts of heldout_prompts are also in preferences", text)
    assert "why an arm that has seen the questions" in text
    assert "fix take them out" in text
    assert "1 FAIL" in text
    assert "INFO" not in told(leaky.examine(), least=Severity.WARN)


def test_tokens_are_coloured_by_whether_they_are_learned(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.rows = [{**r, "chosen": [*r["chosen"], {"role": "user", "content": "Go on."}, *r["chosen"]]} for r in ward.rows]
    patient = ward.examine().patient
    lines = list(coloured(patient.tokenised["preferences"].groups[0], patient.renderer))
    spans = {(str(s.style), lines[1].plain[s.start : s.end]) for s in lines[1].spans}
    assert ("green", "g¦") in spans
    assert ("red", "G¦") in spans, "the user's second turn is not learned"


def test_the_command_stops_a_run_with_2(leaky: Ward, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    import sys

    import evenhand.cli

    path, out = leaky.write(), leaky.folder / "out"

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["evenhand", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            evenhand.cli.main()
        return ended.value.code or 0

    assert call("doctor", path, "--quick", "--out", out) == 2
    assert call("run", path, "--out", out) == 2
    shown = capsys.readouterr().err
    assert "D17" in shown
    assert 'doctor: {waive: {D17: "the reason"}}' in shown
    assert not (out / "experiment.json").exists(), "nothing was begun"
    assert call("doctor", path, "--quick", "--only", "D5") == 0
    assert call("doctor", path, "--only", "D55") == 2
    assert call("doctor", path, "--list") == 0


@pytest.mark.parametrize(("method", "loss"), [("rso_hinge", "1.0000"), ("hinge", "1.0000"), ("dpo", "0.6931")])
def test_a_first_loss_is_known_by_todays_names_and_those_of_before(method: str, loss: str, tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.experiment["arms"] = {"base": {"method": "start"}, "arm": {"method": method}}
    (found,) = ward.examine(quick=False, only=["M1"])["M1"].findings
    assert found.seen == f"arms.arm: the first loss is {loss}, as it must be"


@pytest.mark.parametrize("id", ["M4", "M5", "M8"])
def test_a_log_prob_that_is_no_number_is_the_worst_difference(id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.doctor import forward_probe

    real, asked = forward_probe.logps, []

    def broken_at_the_end(policy, rows):
        found = real(policy, rows)
        asked.append(len(rows))
        return found if len(asked) == 1 else [*found[:-1], found[-1] * torch.nan]

    monkeypatch.setattr(forward_probe, "logps", broken_at_the_end)
    (finding,) = Ward(tmp_path).examine(quick=False, only=[id])[id].findings
    assert finding.severity is not Severity.INFO, finding.seen
    assert "nan" in finding.seen
