"""A stage that goes on from a damaged checkpoint: the damage is said, and the end has the bytes of a run without a stop."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from evenhand.stages import fit
from evenhand.train import checkpoint
from tests.stages.performed import SMALL, Graph, Killed

TEXT = (
    f"{SMALL}name: damaged"
    + """
train: {steps: 5, prompts_per_step: 3, learning_rate: 3.0e-3, schedule: constant, checkpoint_every: 1, sample_every: 1}
arms:
  start: {method: start}
  rloo: {method: rloo, reward: gold, completions_per_prompt: 2}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)
ARM = "arms/rloo/seed-0"
KEPT = ("model/model.safetensors", "metrics.jsonl", "samples.jsonl")


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    made = Graph(tmp_path_factory.mktemp("graph"), TEXT)
    made.run(ARM)
    return made


@pytest.fixture(scope="module")
def stopped(graph, tmp_path_factory):
    """The stage's folder after a stop in step 4: a checkpoint of step 3."""
    out = tmp_path_factory.mktemp("stopped")

    def stop(done, total, **shown):
        if total == 5 and done == 4:
            raise Killed

    with pytest.raises(Killed):
        graph.run(ARM, out, stop)
    return out


def flip(path: Path, at: int = -1) -> None:
    """One bit, with size and times as they were."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def rewritten_step(folder: Path) -> None:
    path = folder / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "step": 99999}))


def bad_line(folder: Path) -> None:
    path = folder.parent / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "{oh\n", *lines[1:]]))


DAMAGE = {
    "weights cut": lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:100]),
    "optimizer empty": lambda f: (f / "optimizer.safetensors").write_bytes(b""),
    "optimizer gone": lambda f: (f / "optimizer.safetensors").unlink(),
    "state empty": lambda f: (f / "state.json").write_text(""),
    "state gone": lambda f: (f / "state.json").unlink(),
    "state says another step": rewritten_step,
    "a bit of the weights": lambda f: flip(f / "model.safetensors"),
    "a bit of the optimizer": lambda f: flip(f / "optimizer.safetensors"),
    "another step in its name": lambda f: f.rename(f.with_name("checkpoint-00099999")),
    "its digests gone": lambda f: (f / "digests.json").unlink(),
    "a bad line in the metrics": bad_line,
    "a bit of the metrics": lambda f: flip(f.parent / "metrics.jsonl", at=12),
    "no metrics": lambda f: (f.parent / "metrics.jsonl").unlink(),
    "samples cut": lambda f: (f.parent / "samples.jsonl").write_bytes(b'{"step": 0}\n'),
    "everything empty": lambda f: [path.write_bytes(b"") for path in f.iterdir()],
}


def damaged(stopped: Path, out: Path, kind: str) -> Path:
    shutil.copytree(stopped, out)
    assert [p.name for p in out.glob("checkpoint-*")] == ["checkpoint-00000003"]
    DAMAGE[kind](out / "checkpoint-00000003")
    return out


def is_said(caplog) -> bool:
    """Once, and with what comes of it."""
    said = [r.message for r in caplog.records if "damaged" in r.message]
    return len(said) == 1 and "is dropped; training goes on from the checkpoint before, or from its beginning" in said[0]


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_of_any_kind_is_found_and_dropped(stopped, tmp_path, caplog, kind):
    out = damaged(stopped, tmp_path / "out", kind)
    assert checkpoint.latest(out) is None
    assert is_said(caplog)
    assert not list(out.glob("checkpoint*"))


@pytest.mark.parametrize("kind", ["optimizer gone", "a bad line in the metrics", "no metrics", "samples cut", "everything empty"])
def test_damage_is_said_and_changes_no_byte(graph, stopped, tmp_path, caplog, kind):
    """Of the checkpoint, and of each log beside it, which are written anew."""
    out, steps = damaged(stopped, tmp_path / "out", kind), []
    graph.run(ARM, out, lambda done, total, **shown: steps.append(done))
    assert is_said(caplog)
    assert 1 in steps, "from the beginning"
    whole = graph.run(ARM)
    assert [name for name in KEPT if (out / name).read_bytes() != (whole / name).read_bytes()] == []
    assert not list(out.glob("checkpoint*"))


def test_a_sound_checkpoint_is_used(graph, stopped, tmp_path, caplog):
    out, steps = tmp_path / "out", []
    shutil.copytree(stopped, out)
    with open(out / "metrics.jsonl", "ab") as file:
        file.write('{"step": 4, "text": "é'.encode()[:-1])  # what a kill in the middle of a character leaves
    graph.run(ARM, out, lambda done, total, **shown: steps.append(done))
    assert not [r for r in caplog.records if "damaged" in r.message]
    assert 3 not in steps
    assert 4 in steps
    whole = graph.run(ARM)
    assert [name for name in KEPT if (out / name).read_bytes() != (whole / name).read_bytes()] == []


def test_the_checkpoint_before_is_used_where_it_is_still_there(graph, tmp_path, caplog):
    """A kill between the end of a save and the removal of the checkpoint before leaves both."""
    out, steps, kept = tmp_path / "out", [], tmp_path / "kept"

    def stop(done, total, **shown):
        if total == 5 and done == 3:
            shutil.copytree(out / "checkpoint-00000002", kept)
        if total == 5 and done == 4:
            raise Killed

    with pytest.raises(Killed):
        graph.run(ARM, out, stop)
    kept.rename(out / "checkpoint-00000002")
    flip(out / "checkpoint-00000003" / "model.safetensors")
    graph.run(ARM, out, lambda done, total, **shown: steps.append(done))
    said = [r.message for r in caplog.records if "damaged" in r.message]
    assert [text.partition(" is damaged")[0] for text in said] == ["checkpoint-00000003"]
    assert 2 not in steps
    assert 3 in steps
    whole = graph.run(ARM)
    assert [name for name in KEPT if (out / name).read_bytes() != (whole / name).read_bytes()] == []


def test_latest_removes_what_is_damaged(tmp_path):
    (tmp_path / "checkpoint-00000004").mkdir()
    assert checkpoint.latest(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_stage_killed_while_it_tidied_up_is_not_finished_with_damage(graph, tmp_path, caplog):
    """The ledger is the last file: all the rest was there, and one bit of it is another one now."""
    out, whole = tmp_path / "out", graph.run(ARM)
    shutil.copytree(whole, out)
    flip(out / "model" / "model.safetensors")
    graph.run(ARM, out)
    said = [r.message for r in caplog.records if "damaged" in r.message]
    assert said == [
        "what training had written before it was stopped is damaged (model/model.safetensors has other bytes than when it was "
        "finished): it is written again"
    ]
    assert [name for name in KEPT if (out / name).read_bytes() != (whole / name).read_bytes()] == []


def test_what_was_written_is_not_trusted_without_its_digests(tmp_path, caplog):
    """A stage that had all but its last rename, whose digests are lost: nobody knows whether its weights are those it wrote."""
    (tmp_path / fit.LEDGER).write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"other bytes than were written")
    assert not fit.tidied(tmp_path)
    assert not (tmp_path / fit.LEDGER).exists()
    assert any("it is written again" in record.message for record in caplog.records)


def test_a_ledger_with_another_bit_is_not_taken_for_what_was_spent(graph, tmp_path):
    """It is among what the digests, written last, say of."""
    out = tmp_path / "out"
    shutil.copytree(graph.run(ARM), out)
    flip(out / fit.LEDGER)
    assert not fit.tidied(out)
    assert not (out / fit.LEDGER).exists()
