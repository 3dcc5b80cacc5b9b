"""A comparison, or another evaluation, without a single prompt is told so once, as early as it can be seen."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evenhand.data.jsonl import write_groups
from evenhand.doctor import examine
from evenhand.doctor.registry import Severity
from evenhand.errors import UserError
from evenhand.run_experiment import execute, prepare
from evenhand.spec.read import read_experiment
from evenhand.stages import evaluate_reward_model
from evenhand.stages.context import StageContext
from evenhand.stages.data import from_sources
from evenhand.stages.evaluate_reward_model import EvaluateRewardModelSpec
from evenhand.types import Completion, Group, Prompt
from tests.stages.performed import setup

PAIR = {"prompt": "What is grey?", "chosen": "An elephant.", "rejected": "A rose."}
ARMS = {"start": {"method": "start"}, "dpo": {"method": "dpo"}}


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def given(data: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "apart", "model": {"path": "nowhere"}, "train": {"steps": 1}, "arms": ARMS, "data": data,
        "judge": {"reward": {"kind": "length", "unit": "chars"}, "self_test": 0}, "runtime": {"device": "cpu"}, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"preferences": "pairs.jsonl", "holdout": 0}, "`data.holdout` is 0"),
        ({"preferences": "pairs.jsonl", "heldout_preferences": "other.jsonl"}, "have a held-out file of their own"),
    ],
)
def test_what_needs_no_data_to_be_seen_is_told_when_the_file_is_read(data: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match="no prompts are held out") as caught:
        read_experiment(given(data))
    assert why in str(caught.value)
    assert "name `data.heldout_prompts`" in str(caught.value)
    read_experiment(given({**data, "heldout_prompts": "asked.jsonl"}))
    alone = {k: v for k, v in given(data).items() if k not in ("arms", "judge")}
    read_experiment({**alone, "reward_models": {"rm": {"train": {"steps": 1}}}})  # nobody is asked anything


def test_so_few_rows_that_none_falls_on_the_held_out_side(tmp_path: Path) -> None:
    """One prompt is on one side; which one depends on its id. The check before a run and the stage say the same."""
    rows = next(r for i in range(9) if not held(r := [{**PAIR, "prompt": f"What is grey, {i}?"}], tmp_path))
    prepared = prepare(given({"preferences": written(tmp_path / "pairs.jsonl", rows)}), out=tmp_path / "run")
    found = [f for f in examine(prepared, quick=True, only=["D16"])["D16"].findings if f.severity is Severity.FAIL]
    assert [f.seen for f in found] == ["there are no held-out prompts"]
    outcome, results = execute(prepared, workers=0)
    assert results is None
    assert outcome.errors["data"].count("no prompts are held out") == 1
    assert "raise `data.holdout`" in outcome.errors["data"]
    assert not any("at least 1 values" in error for error in outcome.errors.values())


def held(rows: list[dict[str, Any]], folder: Path) -> int:
    from evenhand.data.config import DataConfig

    path = written(folder / "tried.jsonl", rows)
    return len(from_sources(DataConfig(preferences=path), 0)[0]["heldout_prompts"])


def test_another_evaluation_without_prompts_is_told_at_its_own_place(tmp_path: Path) -> None:
    """Its prompts are taken out against a list of them, so that none is left."""
    asked = written(tmp_path / "ask.jsonl", [{"prompt": "why"}])
    pairs = written(tmp_path / "pairs.jsonl", [{**PAIR, "prompt": f"{i}?"} for i in range(40)])
    evaluations = {
        "cleaned": {"prompts": {"path": asked, "clean": {"against": asked}}},
        "lost": {"prompts": str(tmp_path / "gone.jsonl")},
        "fine": {"prompts": asked},
    }
    given_all = given({"preferences": pairs}, evaluations=evaluations)
    prepared = prepare(given_all, out=tmp_path / "run")
    found = [f for f in examine(prepared, quick=True, only=["D16"])["D16"].findings if f.severity is Severity.FAIL]
    assert found[0].seen == "evaluations.cleaned.prompts: ask.jsonl holds no usable rows"
    assert found[1].seen.startswith("evaluations.lost.prompts: ")
    assert len(found) == 2
    outcome, _ = execute(prepared, workers=0)
    assert "evaluations.cleaned.prompts: ask.jsonl holds no usable rows" in outcome.errors["evaluations/cleaned/prompts"]
    assert "evaluations/fine/prompts" not in outcome.errors


@pytest.mark.parametrize("rows", [[], [(1.0, 1.0)]])
def test_reward_models_without_a_held_out_pair_to_tell_apart_are_told_so(
    rows: list[tuple[float, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pair is held out, or every one is a tie: there is nothing to measure a reward model by."""
    answers = (Completion(content="a"), Completion(content="b"))
    write_groups(
        tmp_path / "heldout_preferences.jsonl", [Group(prompt=Prompt(content="?"), completions=answers, scores=s) for s in rows]
    )
    monkeypatch.setattr(evaluate_reward_model, "open_model_reward", lambda *given: SimpleNamespace(unscaled=lambda: None))
    context = StageContext(seed=0, inputs={"model": tmp_path, "data": tmp_path}, out=tmp_path)
    with pytest.raises(UserError, match=rf"no held-out pair tells .* \({len(rows)} rows are held out\)"):
        evaluate_reward_model.run(EvaluateRewardModelSpec(setup=setup()), context)
