"""The results record: what is written is read again, older files too, and nothing in it names a folder of this machine."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from evenhand import results
from evenhand.errors import UserError
from evenhand.manual.results import schema
from evenhand.results.files import plain, read, write_record
from evenhand.results.paths import without_folders
from evenhand.results.record import ArmResult, ArmVerdict, Contrast, Results
from tests.report.fake_run import write_run

OLD = """{
 "name": "old", "description": "", "baseline": "sft", "n_prompts": 200, "seeds": [0, 1],
 "judge": {"name": "/home/me/models/judge-7b", "kind": "local", "invalid": 0.0, "self_test": {"passed": true, "n": 20}},
 "arms": {
  "sft": {"win_rate": 0.5, "ci95": null, "ci95_prompts_only": null, "per_seed": [0.5, 0.5], "ties": 1.0, "method": "start"},
  "dpo": {"win_rate": 0.61, "ci95": [0.52, 0.7], "per_seed": [0.6, 0.62], "note": "", "kl": NaN, "length_controlled": 0.58,
          "ledger": {"tokens_generated": 0.0, "tokens_trained": 96000.0, "reward_calls": 0.0, "flops": 1e13}, "proxies": {}},
  "ppo": {"win_rate": null, "ci95": null, "per_seed": [null, null], "seeds": [], "method": "ppo"}
 },
 "contrasts": [{"a": "dpo", "b": "sft", "difference": 0.11, "ci95": [0.02, 0.2], "p_holm": 0.02, "verdict": "better",
                "length_controlled": null}],
 "power": {"minimum_detectable_difference": null}, "excluded": [{"arm": "ppo", "seeds": [0, 1], "kept": []}],
 "best_of_n": null, "an_experiment_of_ours": 7,
 "failed": [{"node": "arms/ppo/seed-0", "error": "OSError: no space in /home/me/run/x.json; fix: see /home/me/run/a.log"}]
}"""
"""A file as it was written before files had versions."""


def test_a_file_without_a_version_reads_as_a_record(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(OLD)
    found = results.load(tmp_path)
    assert found == results.load(tmp_path / "results.json")
    assert (found.version, found.baseline, found.seeds, found.n_prompts) == (1, "sft", (0, 1), 200)
    dpo = found.arms["dpo"]
    assert (dpo.win_rate, dpo.ci95, dpo.per_seed, dpo.kl) == (0.61, (0.52, 0.7), (0.6, 0.62), None)
    assert dpo.length_controlled is not None
    assert dpo.length_controlled.win_rate == 0.58
    assert dpo.ledger is not None
    assert dpo.ledger.tokens_trained == 96000.0
    assert found.arms["ppo"] == ArmResult(per_seed=(None, None), method="ppo")
    assert found.contrasts == (
        Contrast(a="dpo", b="sft", difference=0.11, ci95=(0.02, 0.2), p_holm=0.02, verdict=ArmVerdict.BETTER),
    )
    assert (found.deviations, found.tuning, found.best_of_n, found.waived) == (None, None, {}, ())
    assert found.judge is not None
    assert found.judge.name == "judge-7b"
    assert found.failed is not None
    assert found.failed[0].error == "OSError: no space in x.json; fix: see a.log"
    assert "/home/me" not in json.dumps(plain(found))


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    """Every optional part is in the fake run of the report."""
    found = results.load(write_run(tmp_path / "run"))
    write_record(tmp_path / "results.json", found)
    assert results.load(tmp_path) == found
    assert read(plain(found)) == found
    written = json.loads((tmp_path / "results.json").read_text())
    assert list(written)[:6] == ["version", "name", "description", "baseline", "judge", "n_prompts"]
    assert {"seeds", "arms", "contrasts", "reward_models"} <= set(written)
    assert {"win_rate", "ci95", "ci95_prompts_only", "per_seed", "ties", "mean_length", "kl", "reward", "ledger"} <= set(
        written["arms"]["dpo"]
    )
    assert {"a", "b", "difference", "ci95", "p_holm", "verdict"} <= set(written["contrasts"][0])
    assert {"accuracy", "ci95", "mean_margin", "log_loss", "length_correlation"} <= set(written["reward_models"]["rm"])


def test_what_is_not_a_number_is_null_and_a_broken_interval_is_none(tmp_path: Path) -> None:
    arm = ArmResult(win_rate=math.nan, ci95=(0.1, math.inf), gold=1.0)
    write_record(tmp_path / "results.json", Results(arms={"a": arm}))
    assert json.loads((tmp_path / "results.json").read_text())["arms"]["a"]["ci95"] is None
    assert results.load(tmp_path).arms == {"a": ArmResult(gold=1.0)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 99, "arms": {}}', "a newer evenhand wrote this"),
        ('{"arms": ["dpo"]}', "no table 'arms'"),
        ('{"version": 1, "arms": {"dpo": {"win_rate": "high"}}}', r"arms\.dpo\.win_rate: Input should be a valid number"),
        ('{"arms": ', "this is not JSON"),
        ('{"version": "1.0", "arms": {}}', "'1.0' is no version"),
        ('{"version": null, "arms": {}}', "None is no version"),
        ('{"version": -3, "arms": {}}', "-3 is no version"),
        ('{"version": 0, "arms": {"dpo": 3}}', "this is no results.json of version 0"),
        ('{"arms": {}, "judge": "gpt"}', "this is no results.json of version 0"),
        ("\udcff", "this is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "results.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=message) as caught:
        results.load(tmp_path)
    assert "results.json" in str(caught.value)
    with pytest.raises(UserError, match=r"has no results\.json"):
        results.load(tmp_path / "elsewhere")


def test_errors_name_places_in_the_run_and_no_folder_of_this_machine() -> None:
    names = {"/home/me/run": "", "/data/store": "store"}
    text = "see /home/me/run/logs/a.log and /data/store/ab12/model, not /opt/x/y.py or https://hub.co/a/b"
    assert without_folders(text, names) == "see logs/a.log and store/ab12/model, not y.py or https://hub.co/a/b"


def test_a_contrast_reads_backwards_at_equal_length_too() -> None:
    contrast = read({"arms": {}, "contrasts": [json.loads(OLD)["contrasts"][0] | {"per_seed": [0.1, 0.12]}]}).contrasts[0]
    back = contrast.mirrored()
    assert (back.a, back.b, back.difference, back.ci95, back.per_seed, back.verdict) == (
        "sft", "dpo", -0.11, (-0.2, -0.02), (-0.1, -0.12), ArmVerdict.WORSE,
    )  # fmt: skip
    assert back.mirrored() == contrast
    assert replace(contrast, difference=None, ci95=None).mirrored().ci95 is None


def test_what_the_published_schema_wants() -> None:
    assert json.loads(schema())["required"] == ["arms"]
