"""Damage to a finished run, of every kind that was seen: the next run says so and has the same results; assembling alone leaves
out what is damaged and reports the rest."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from evenhand.errors import UserError
from evenhand.results.assemble import assemble
from evenhand.run_experiment import Run, execute, prepare
from evenhand.runner.installed import versions
from evenhand.runner.progress import Quiet
from evenhand.store import digests
from evenhand.store.store import Store
from tests.stages.performed import SMALL

TEXT = (
    f"{SMALL}name: damaged"
    + """
seeds: [0, 1]
train: {steps: 2, prompts_per_step: 3, learning_rate: 3.0e-3}
arms:
  start: {method: start}
  dpo: {method: dpo}
  again: {method: sft}
evaluation: {prompts: 6, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)


class Notes(Quiet):
    def __init__(self) -> None:
        self.said: list[str] = []

    def noted(self, cell, text) -> None:
        self.said.append(text)


def planned(folder: Path) -> Run:
    (folder / "small.yaml").write_text(TEXT)
    return prepare(str(folder / "small.yaml"), out=folder / "run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    outcome, results = execute(planned(folder), workers=0)
    assert outcome.ok, outcome.errors
    assert set(results.arms) == {"start", "dpo", "again"}
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Run:
    """The finished run, once more, as another process finds it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return planned(tmp_path)


def artifact(run: Run, name: str) -> Path:
    return run.store.path(run.plan[name].key)


def node_of(run: Run, name: str) -> str:
    return {
        "start": "base",
        "weights": run.plan.arms["dpo"][0],
        "answers": run.plan.generations["start"][1],
        "verdicts": run.plan.verdicts["dpo"][0],
    }[name]


def rewritten(path: Path, data: bytes) -> None:
    """Other bytes, at the times of before."""
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    rewritten(path, bytes(data))


def another_answer(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["completions"][0]["content"] = "An excellent answer."
    rewritten(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def another_winner(path: Path) -> None:
    found = json.loads(path.read_text())
    rewritten(path, json.dumps({**found, "outcome": [1.0 - o for o in found["outcome"]]}).encode())


WEIGHTS, ANSWERS, VERDICTS = "model/model.safetensors", "generations.jsonl", "verdicts.json"
DAMAGE = {
    "a bit of the shared start": ("start", WEIGHTS, flipped),
    "a baseline's answer rewritten": ("answers", ANSWERS, another_answer),
    "an arm's verdicts edited": ("verdicts", VERDICTS, another_winner),
    "an arm's verdicts empty": ("verdicts", VERDICTS, lambda p: rewritten(p, b"")),
    "an arm's verdicts deleted": ("verdicts", VERDICTS, Path.unlink),
    "answers cut": ("answers", ANSWERS, lambda p: rewritten(p, p.read_bytes()[:100])),
    "what was measured deleted": ("answers", "measured.json", Path.unlink),
    "weights cut": ("weights", WEIGHTS, lambda p: rewritten(p, p.read_bytes()[:1000])),
    "weights deleted": ("weights", WEIGHTS, Path.unlink),
    "the tokenizer emptied": ("start", "model/tokenizer.json", lambda p: rewritten(p, b"")),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_next_run_says_so_and_has_the_same_results(run, finished, kind):
    which, file, hurt = DAMAGE[kind]
    name = node_of(run, which)
    hurt(artifact(run, name) / file)
    notes = Notes()
    outcome, results = execute(run, workers=0, view=notes)
    assert outcome.ok
    (said,) = [text for text in notes.said if "damaged" in text]
    assert said.startswith(f"artifact {run.plan[name].key[:12]} ({name}) is damaged: {file} ")
    assert said.endswith("; it is made again")
    assert results.failed == ()
    assert (run.out / "results.json").read_bytes() == (finished / "run" / "results.json").read_bytes()
    assert Store(run.store.root).damage(run.plan[name].key) == ""


def note_of(run: Run, name: str, **changed: object) -> None:
    """The artifact as it would be had its note said so when it was finished."""
    folder = artifact(run, name)
    note = json.loads((folder / "meta.json").read_text()) | changed
    (folder / "meta.json").chmod(0o644)
    (folder / "meta.json").write_text(json.dumps(note))
    (folder / digests.NAME).chmod(0o644)
    digests.seal(folder)


def test_versions_that_changed_are_in_the_results(run):
    old = {**versions(), "torch": "1.0"}
    note_of(run, "base", versions=old)
    note_of(run, run.plan.arms["dpo"][1], begun_with=old)
    found = assemble(run.plan, run.store, run.out).deviations
    torch = versions()["torch"]
    said = f"arms/dpo/seed-1 was begun with torch 1.0 and went on with torch {torch}: it may differ from a run with either"
    assert said in found
    (apart,) = [text for text in found if text.startswith("not all stages were made with the same versions: ")]
    assert "torch 1.0 made base" in apart
    assert f"torch {torch} made " in apart


@pytest.mark.parametrize("kind", [k for k, (which, _, _) in DAMAGE.items() if which in ("verdicts", "answers")])
def test_damage_after_the_run_costs_the_cell_and_what_depends_on_it(run, finished, kind):
    """Assembled anew and nothing made again: the other cells are there as they were."""
    which, file, hurt = DAMAGE[kind]
    name = node_of(run, which)
    hurt(artifact(run, name) / file)
    arm, seed = ("dpo", 0) if which == "verdicts" else ("start", 1)
    results = assemble(run.plan, run.store, run.out)
    (failed,) = results.failed
    assert failed.node == name
    assert f"is damaged: {file} " in failed.error
    assert str(run.out) not in failed.error
    assert [(e.arm, e.seeds) for e in results.excluded] == [(arm, (seed,))]
    before = json.loads((finished / "run" / "results.json").read_text())
    assert set(results.arms) == set(before["arms"])
    assert results.arms["again"].per_seed == tuple(before["arms"]["again"]["per_seed"])


@pytest.mark.parametrize("gone", [(0,), (0, 1)])
def test_an_arm_whose_training_is_gone_keeps_the_verdicts_on_its_answers(run, finished, gone):
    """Damaged, thrown away, and the run that made it again was killed: its answers were sound when they were judged."""
    before = json.loads((finished / "run" / "results.json").read_text())["arms"]["dpo"]
    for seed in gone:
        run.store.discard(run.plan[run.plan.arms["dpo"][seed]].key)
    found = assemble(run.plan, run.store, run.out).arms["dpo"]
    assert found.per_seed == tuple(before["per_seed"])
    assert (found.ledger.tokens_trained is None) == (len(gone) == 2)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_spoilt_record_of_a_run_is_said(run, text):
    (run.out / "experiment.json").write_text(text)
    with pytest.raises(UserError, match="this is no record of a run"):
        prepare(str(run.out), out=run.out)


def test_spoilt_results_are_written_anew_and_said(run, finished, caplog):
    before = (finished / "run" / "results.json").read_bytes()
    (run.out / "results.json").write_text(before.decode()[:100])
    execute(run, workers=0)
    assert "results.json cannot be read and is written anew" in caplog.text
    assert (run.out / "results.json").read_bytes() == before
