"""Many models, or many reward models, from one command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from evenhand.cli import app


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    Path("models").mkdir()
    for name, length in (("long", 30), ("short", 4), ("base", 12)):
        words = draw.normal(length, 6, 60).astype(int).clip(1)
        rows = [{"instruction": f"q{i}", "output": "word " * n, "generator": name} for i, n in enumerate(words)]
        Path(f"models/{name}.json").write_text(json.dumps(rows))
    return tmp_path


def test_a_folder_of_answers_becomes_a_leaderboard(files):
    judge = "{kind: length, unit: chars}"
    found = CliRunner().invoke(app, ["judge", "models", "models/base.json", "--judge", judge, "--out", "out"])
    assert found.exit_code == 0, found.output
    lines = [json.loads(line) for line in Path("out/leaderboard.jsonl").read_text().splitlines()]
    assert [row["model"] for row in lines] == ["long", "short"]
    assert [row["verdict"] for row in lines] == ["better", "worse"]
    assert all({"win_rate", "ci95", "length_controlled", "style_controlled", "p_holm"} <= row.keys() for row in lines)
    head, long = found.output.splitlines()[:2]
    assert head.split("  ")[0] == "model"
    assert "for all models" in head
    assert "at equal length (over prompts)" in head
    low, high = (100 * end for end in lines[0]["ci95_simultaneous"])
    assert f"{low:.1f} to {high:.1f}" in long, "the interval that goes with Holm's verdict"
    assert "against base" in head
    assert len(Path("out/verdicts.jsonl").read_text().splitlines()) == 120


def test_several_reward_models_on_one_benchmark(files):
    rows = [
        {"prompt": "q", "domain": "code", "chosen": ["aaaa", "aaaaa", "aaaaaa"], "rejected": ["b", "bb", "bbb"]},
        {"prompt": "q", "domain": "code", "chosen": ["a", "a", "a"], "rejected": ["bb", "bb", "bb"]},
    ]
    Path("rm.json").write_text(json.dumps(rows))
    command = ["evaluate", "{kind: length, unit: chars}", "--against", "{kind: length, unit: words}", "--pairs", "rm.json"]
    found = CliRunner().invoke(app, [*command, "--leaderboard", "board.jsonl"])
    assert found.exit_code == 0, found.output
    lines = [json.loads(line) for line in Path("board.jsonl").read_text().splitlines()]
    assert [row["sections"]["code"] for row in lines] == [0.5, 0.0]
    assert {row["benchmark"] for row in lines} == {"RM-Bench"}
    assert "reward model" in found.output


def test_alpaca_evals_leaderboard_has_the_rate_at_equal_style():
    from evenhand.evaluation import alpaca_eval

    draw = np.random.default_rng(1)
    rows = [
        {"instruction": f"q{i}", "output_1": "b" * int(draw.integers(5, 40)), "output_2": "a" * int(draw.integers(5, 40)),
         "generator_1": "base", "generator_2": "m", "preference": float(draw.integers(1, 3))}
        for i in range(80)
    ]  # fmt: skip
    line = alpaca_eval.leaderboard(rows)["m"]
    low, high = line["style_ci95"]
    assert low < line["style_controlled_winrate"] < high
