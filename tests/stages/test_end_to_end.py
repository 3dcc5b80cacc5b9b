"""The whole path on a tiny experiment: results, sharing, determinism, and resume after kill -9 at random moments."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stages.kill_matrix import LOOK, Watched

HUNG = 3000.0
"""Seconds after which a process is taken to hang, however busy the machine is."""
TINY = Path(__file__).with_name("tiny.yaml")
RUN = [sys.executable, "-m", "evenhand.cli", "run", str(TINY)]
QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def run(out: Path) -> str:
    done = subprocess.run([*RUN, "--out", str(out)], capture_output=True, text=True, env=QUIET, timeout=HUNG)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def bytes_of(out: Path) -> dict[str, bytes]:
    """Everything that must be the same from run to run: results, weights, metrics, samples, answers, verdicts."""
    kept = ("*.safetensors", "metrics.jsonl", "samples.jsonl", "generations.jsonl", "verdicts.json", "scores.json")
    files = [p for pattern in kept for p in (out / "store").rglob(pattern)]
    return {"results.json": (out / "results.json").read_bytes()} | {str(p.relative_to(out)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    run(out)
    return out


def test_results_have_the_promised_form(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert results["baseline"] == "sft"
    assert results["seeds"] == [0, 1]
    assert results["n_prompts"] == 12
    assert set(results["arms"]) == {"sft", "dpo", "rloo", "grpo"}
    for name in ("dpo", "rloo", "grpo"):
        row = results["arms"][name]
        assert 0 <= row["ci95"][0] <= row["win_rate"] <= row["ci95"][1] <= 1
        assert len(row["per_seed"]) == 2
        assert row["ledger"]["tokens_trained"] > 0
    assert results["arms"]["dpo"]["ledger"]["tokens_generated"] == 0
    assert results["arms"]["rloo"]["ledger"]["tokens_generated"] > 0
    assert len(results["contrasts"]) == 6
    assert {c["verdict"] for c in results["contrasts"]} <= {"better", "worse", "inconclusive"}
    assert 0 <= results["reward_models"]["rm"]["accuracy"] <= 1
    assert results["failed"] == []


def test_run_directory_has_the_promised_files(finished: Path) -> None:
    for arm in ("dpo", "rloo", "grpo"):
        for seed in (0, 1):
            cell = finished / "arms" / arm / f"seed-{seed}"
            rows = [json.loads(line) for line in (cell / "metrics.jsonl").read_text().splitlines()]
            assert [r["step"] for r in rows] == [1, 2, 3, 4, 5]
            assert all(math.isfinite(r["loss"]) for r in rows)
            assert (cell / "model" / "model.safetensors").exists()
            assert (cell / "model" / "tokenizer.json").exists()
            assert json.loads((cell / "ledger.json").read_text())["seconds"]["train"] > 0
    start = finished / "arms" / "sft" / "seed-0"
    assert (start / "model" / "model.safetensors").exists()
    assert not (start / "metrics.jsonl").exists(), "the start's own training is not this arm's"
    page = (finished / "report.html").read_text()
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_results_say_how_far_to_believe_judge_and_rewards(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert results["judge"]["self_test"]["identical"] == 0.5
    assert results["judge"]["invalid"] == 0.0
    for arm in ("dpo", "rloo", "grpo"):
        points = results["frontier"][arm]
        starts = [p for p in points if p["step"] == 0]
        assert len(starts) == 2
        assert all(abs(p["kl"]) < 1e-3 for p in starts), "before the first step the policy is the start"
        assert {p["step"] for p in points} == {0, 2, 4, 5}
        assert results["arms"][arm]["length_controlled"]["form"] == "lc_shrunk"
    curve = results["best_of_n"]["rm"]
    assert [p["n"] for p in curve] == [1, 2, 3]
    best = [p["gold"] for p in results["best_of_n"]["the judge itself"]]
    assert best == sorted(best)
    assert best[2] >= curve[2]["gold"]
    assert sum(map(sum, results["length_bias"]["rm"]["heatmap"]["counts"])) == results["length_bias"]["rm"]["prompts"]
    assert "repetition" in results["reward_models"]["rm"]["probes"]


def test_dpo_starts_at_log_two(finished: Path) -> None:
    first = json.loads((finished / "arms/dpo/seed-0/metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["margin"] == pytest.approx(0, abs=1e-3)


def test_models_load_with_transformers(finished: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    folder = finished / "arms/rloo/seed-0/model"
    AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    rm = AutoModelForSequenceClassification.from_pretrained(finished / "reward_models/rm/seed-0/model")
    assert rm.config.num_labels == 1


def test_again_is_only_cache_hits(
    finished: Path, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained, compared, drawn or looked at again."""
    for work in ("results.assemble.assemble", "report.page.write_page", "cli.doctor.look"):
        monkeypatch.setattr(f"evenhand.{work}", lambda *_, **__: pytest.fail("it was done again"))
    made = [*(finished / "store").rglob("*.safetensors"), finished / "results.json", finished / "report.html"]
    before = {p: p.stat().st_mtime_ns for p in made}
    code, said, _ = cli("run", TINY, "--out", finished)
    assert code == 0
    assert "win rate against sft on 12 held-out prompts" in said
    assert {p: p.stat().st_mtime_ns for p in made} == before


@pytest.mark.parametrize("change", ["page", "table", "results", "description", "package"])
def test_what_is_not_as_it_was_is_written_again(
    change: str, finished: Path, tmp_path: Path, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, run := tmp_path / finished.name)
    more, was = [], {name: (run / name).read_text() for name in ("results.json", "report.html", "results.csv")}
    if change == "page":
        (run / "report.html").unlink()
    elif change == "table":
        (run / "results.csv").write_text("arm,win_rate\nrloo,1.0\n")
    elif change == "results":
        (run / "results.json").write_text(was["results.json"].replace('"baseline": "sft"', '"baseline": "dpo"'))
    elif change == "description":
        more = ["description=said later"]
    else:
        monkeypatch.setattr("evenhand.results.unchanged.installed", lambda: "another evenhand")
    times = {name: (run / name).stat().st_mtime_ns for name in was if (run / name).exists()}
    assert cli("run", TINY, *more, "--out", run)[0] == 0
    now = {name: (run / name).read_text() for name in was}
    if change == "description":
        assert json.loads(now["results.json"]) == {**json.loads(was["results.json"]), "description": "said later"}
        assert "said later" in now["report.html"]
    else:
        assert now == was
    written = {name for name in times if (run / name).stat().st_mtime_ns != times[name]}
    assert written == {"page": {"results.csv"}, "table": {"report.html", "results.csv"}}.get(change, set(was))


def test_another_directory_has_the_same_bytes_even_after_kills(finished: Path, tmp_path: Path) -> None:
    """Killed with SIGKILL, workers and all, after so many changes in its store, and started again until it ends by itself."""
    dice = random.Random(3)
    for _ in range(2):  # the kill matrix, run by hand, kills hundreds of times
        process = subprocess.Popen(
            [*RUN, "--out", str(tmp_path)],
            env=QUIET,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seen = Watched(tmp_path / "store", after=dice.randrange(5, 60))
        while process.poll() is None and not seen.due():
            time.sleep(LOOK)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    run(tmp_path)
    ours, theirs = bytes_of(tmp_path), bytes_of(finished)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_held_out_loss_is_logged_at_its_cadence(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "arms/dpo/seed-0/metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "heldout/loss" in r] == [2, 4, 5]
