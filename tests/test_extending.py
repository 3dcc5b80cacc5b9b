"""docs/extending.md: every snippet of the page, written out as the files it says and run as a user would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evenhand import plugins, worlds
from evenhand.manual import methods as methods_page
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text()
PLUGINS = ["my_methods.py", "my_objective.py", "my_signals.py", "my_judge.py", "my_engine.py", "my_tracker.py"]
IN_ONE_PROCESS = "runtime.workers=0"
"""For what has nothing to do with workers or with a command's own process: each process opens torch anew."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page: a block begins with its file's name, a second block of one file goes on with it."""
    found = tmp_path_factory.mktemp("extending")
    for name, text in re.findall(r"```\w+\n# (\S+\.(?:py|yaml))[^\n]*\n(.*?)```", PAGE, re.DOTALL):
        with (found / name).open("a") as file:
            file.write(text)
    return found


@pytest.fixture(scope="module")
def first(folder: Path) -> Path:
    run = [sys.executable, "-m", "evenhand.cli", "run", "first.yaml", "--out", "first"]
    done = subprocess.run(run, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    logs = [path.read_text()[-1500:] for path in folder.rglob("logs/**/*.log")] if done.returncode else []
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:] + "\n".join(logs)
    return folder / "first"


@pytest.fixture
def typed(
    folder: Path, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """A command in the page's folder that this process carries out, and forgets the plugins of."""
    monkeypatch.chdir(folder)
    path = list(sys.path)

    def command(*words: str) -> None:
        code, out, err = cli(*words)
        assert code == 0, out[-1500:] + err[-1500:]

    yield command
    plugins.activate(())
    sys.path[:] = path


def test_own_methods_credit_selection_surrogate_objective_and_reward_train_in_workers(first: Path) -> None:
    results = json.loads((first / "results.json").read_text())
    assert results["failed"] == []
    assert set(results["arms"]) == {"start", "exponential", "positive", "smooth", "rounds"}
    assert [Path(p["source"]).name for p in results["plugins"]] == PLUGINS
    for arm in ("exponential", "positive", "smooth", "rounds"):
        rows = [json.loads(line) for line in (first / f"arms/{arm}/seed-0/metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [1, 2]
        assert rows[0]["grad_norm"] > 0, arm
        assert ("reward" in rows[0]) == (arm in ("smooth", "rounds"))


def test_the_objective_reduces_as_it_says(first: Path) -> None:
    """On-policy at the first step chosen and reference agree: the loss is log 2 whatever the weight."""
    row = json.loads((first / "arms/positive/seed-0/metrics.jsonl").read_text().splitlines()[0])
    assert row["loss"] == pytest.approx(0.6931, abs=1e-3)


def test_an_own_judge_compares_and_an_own_engine_samples(first: Path) -> None:
    results = json.loads((first / "results.json").read_text())
    assert results["judge"]["name"] == "shorter"
    for arm in ("exponential", "smooth"):
        said = (first / f"logs/generations/{arm}/seed-0.log").read_text()
        assert "counted: 4 x 1 completions" in said
    assert "counted: 8 x 4 completions" in (first / "logs/arms/smooth/seed-0.log").read_text(), "rollouts too: two steps' prompts"


def test_an_own_environment_answers_between_turns(folder: Path, first: Path, typed: Callable[..., None]) -> None:
    typed("run", "turns.yaml", "--out", "turns", IN_ONE_PROCESS)
    results = json.loads((folder / "turns/results.json").read_text())
    assert [Path(p["source"]).name for p in results["plugins"]] == ["my_environment.py"]
    rows = [json.loads(line) for line in (folder / "turns/arms/turns/seed-0/metrics.jsonl").read_text().splitlines()]
    assert all(1 <= row["turns"] <= 2 and row["environment_failed"] == 0 for row in rows)
    files = [path.read_text() for path in (folder / "turns").glob("generations/*/*/generations.jsonl")]
    answers = [json.loads(line)["completions"][0] for text in files for line in text.splitlines()]
    several = [a["turns"] for a in answers if len(a["turns"]) > 1]
    assert several, "one of the answers ends its turn, so that the environment asks for another"
    assert all(turns[1]["messages"][0]["content"] == "Another." for turns in several)


def test_an_own_format_is_read(folder: Path, first: Path, typed: Callable[..., None]) -> None:
    pairs = [(g.prompt.text, *(c.text for c in g.completions)) for g in worlds.get("quickstart").preferences(0, 40)]
    rows = [dict(zip(("question", "good", "bad"), pair, strict=True)) for pair in pairs]
    (folder / "my_pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    typed("run", "second.yaml", "--out", "second", IN_ONE_PROCESS)
    lines = (folder / "second/arms/dpo/seed-0/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_an_own_tracker_is_told_every_step(first: Path) -> None:
    lines = [line.split() for line in (first / "table.txt").read_text().splitlines()]
    assert sorted((arm, seed) for arm, seed, *_ in lines) == [(a, "0") for a in ("exponential", "positive", "rounds", "smooth")]
    assert all(len(line) == 4 for line in lines)


def test_an_own_benchmark_is_recognised(folder: Path, typed: Callable[..., None]) -> None:
    rows = [{"haiku": "a", "syllables": [5, 7, 5]}, {"haiku": "b", "syllables": [5, 7, 6]}]
    (folder / "haiku.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    typed("evaluate", "haiku.jsonl", "--plugins", "my_benchmark.py", "--out", "haiku.json")
    found = json.loads((folder / "haiku.json").read_text())
    assert (found["kind"], found["share"]) == ("haiku", 0.5)
    assert found["ci95"] == pytest.approx([0.0945, 0.9055], abs=1e-4)  # Wilson's interval of 1 of 2


def test_own_methods_are_described_as_all_others_are(folder: Path) -> None:
    try:
        plugins.activate(plugins.resolve(["my_methods.py", "my_objective.py"], folder))
        pages = {name: methods_page.entry(name) for name in ("exponential_dpo", "smooth_median", "dpo_positive")}
    finally:
        plugins.activate(())
        sys.path.remove(str(folder.resolve()))
    assert "- **objective**: `exp(-beta D)`\n" in pages["exponential_dpo"]
    assert "- **objective**: `-A tanh((rho - 1) / width) width`; every token of the step alike\n" in pages["smooth_median"]
    assert "- **objective**: `nls(beta (D - weight max(0, ref_chosen - chosen)))`\n" in pages["dpo_positive"]
    assert "- **reduces to**: `dpo` at weight = 0" in pages["dpo_positive"]


def test_every_snippet_is_small() -> None:
    """A loss, a credit, a reward: a few lines each."""
    for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        assert len([line for line in text.splitlines() if line.strip()]) <= 45
