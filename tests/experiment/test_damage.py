"""Damage to finished artifacts and to work that was begun: named, and made again; never other results without a word."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from fake_stages import Node, chain_plan
from test_run import expected, go, results
from test_store import META, fail

from evenhand.runner.repairs import Repairs
from evenhand.runner.state import RunState, StageStatus
from evenhand.store import digests
from evenhand.store.store import Damaged, Store

KEY = "ab" * 16


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store", reserve=0)
    with made.open(KEY, META) as folder:
        (folder / "model").mkdir()
        (folder / "model" / "model.safetensors").write_bytes(bytes(range(200)))
        (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    return Store(made.root, reserve=0)  # as another process would open it


def writable(path: Path) -> Path:
    path.chmod(0o644)
    return path


def flip(path: Path, at: int = 7) -> None:
    """One bit, with size and times as they were."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[at] ^= 1
    writable(path).write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


DAMAGE = {
    "flipped": (
        lambda f: flip(f / "model/model.safetensors"),
        "model/model.safetensors has other bytes than when it was finished",
    ),
    "cut": (
        lambda f: writable(f / "model/model.safetensors").write_bytes(b"x" * 12),
        "model/model.safetensors has 12 bytes, and had 200 when it was finished",
    ),
    "deleted": (lambda f: (f / "metrics.jsonl").unlink(), "metrics.jsonl is missing"),
    "note": (lambda f: writable(f / "meta.json").write_text(""), "meta.json has 0 bytes"),
    "added": (lambda f: (f / "model/model-2.safetensors").write_text("x"), "model/model-2.safetensors was added since"),
    "digests deleted": (lambda f: (f / digests.NAME).unlink(), "digests.json cannot be read"),
    "digests and note deleted": (
        lambda f: [(f / n).unlink() for n in (digests.NAME, "meta.json")],
        "digests.json cannot be read",
    ),
    "digests emptied": (lambda f: writable(f / digests.NAME).write_text(""), "digests.json cannot be read"),
    "digests of other kind": (lambda f: writable(f / digests.NAME).write_text('{"files": [1]}'), "digests.json cannot be read"),
    "digests flipped": (
        lambda f: flip(f / digests.NAME, at=(f / digests.NAME).read_text().index("model.safetensors")),
        "is missing",
    ),
}


def test_what_was_not_touched_is_sound(store):
    assert store.damage(KEY) == ""
    assert store.require(KEY) == store.path(KEY)


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(store, kind):
    hurt, said = DAMAGE[kind]
    hurt(store.path(KEY))
    assert said in store.damage(KEY)
    with pytest.raises(Damaged, match="artifact abababababab "):
        store.require(KEY)


def test_a_hidden_file_of_a_desktop_is_no_damage(store):
    (store.path(KEY) / ".DS_Store").write_text("x")
    assert store.damage(KEY) == ""


def test_bytes_are_compared_once_in_a_process(store, monkeypatch):
    assert store.damage(KEY) == ""
    monkeypatch.setattr("evenhand.store.digests.content_digest", lambda path: pytest.fail("was read again"))
    assert store.require(KEY) == store.path(KEY)


def test_of_large_files_a_glance_compares_the_size(store):
    flip(store.path(KEY) / "model/model.safetensors")
    assert store.damage(KEY, up_to=199) == ""
    assert "model.safetensors" in store.damage(KEY, up_to=200)
    assert "model.safetensors" in store.damage(KEY), "a glance is not remembered as more than it was"


def test_a_file_is_read_as_it_was_made_whatever_became_of_others(store):
    with store.open("cd" * 16, META) as folder:
        (folder / "a.json").write_text("[1]")
        (folder / "b.json").write_text("[2]")
    flip(store.path("cd" * 16) / "a.json", at=1)
    assert store.read_json("cd" * 16, "b.json") == [2]
    with pytest.raises(Damaged, match=r"\(sft\) is damaged: a.json has other bytes"):
        store.read_json("cd" * 16, "a.json")


def test_equal_artifacts_have_equal_digests(store, tmp_path):
    other = Store(tmp_path / "other", reserve=0)
    with other.open(KEY, META) as folder:
        shutil.copytree(store.path(KEY), folder, dirs_exist_ok=True)
    assert (other.path(KEY) / digests.NAME).read_bytes() == (store.path(KEY) / digests.NAME).read_bytes()


def as_of_before(store, key):
    """The artifact as it was made before artifacts had digests."""
    (store.path(key) / digests.NAME).unlink()
    writable(store.path(key) / "meta.json").write_text(json.dumps(store.meta(key)))


def test_an_artifact_from_before_there_were_digests_counts_as_sound(store):
    as_of_before(store, KEY)
    assert store.unsealed(KEY)
    assert store.damage(KEY) == ""
    assert store.meta(KEY) == META


# --- work that was begun ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hurt", [lambda p: p.write_text(""), lambda p: p.unlink(), lambda p: p.write_text("[]")])
def test_work_whose_note_is_damaged_is_begun_anew_and_said(tmp_path, caplog, hurt):
    store = Store(tmp_path, reserve=0)
    fail(store, KEY)
    hurt(store.partial(KEY) / "meta.json")
    with store.open(KEY, META) as folder:
        assert sorted(p.name for p in folder.iterdir()) == ["meta.json"]
    assert [r.message for r in caplog.records] == ["meta.json of what was begun of sft cannot be read: it is begun anew"]
    assert store.meta(KEY) == META


def test_changed_versions_are_said_when_work_goes_on(tmp_path, caplog):
    store = Store(tmp_path, reserve=0)
    fail(store, KEY)
    with store.open(KEY, {**META, "versions": {"evenhand": "2"}}):
        pass
    assert [r.message for r in caplog.records] == [
        "sft was begun with evenhand 1 and went on with evenhand 2: it may differ from a run with either"
    ]


# --- a run over damaged artifacts ------------------------------------------------------------------------------------


def chain_of(store, nodes, name):
    return store.path(next(n.key for n in nodes.nodes if n.name == name)) / "chain.txt"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["start", "arms/a/seed-1"])
def test_a_damaged_artifact_is_said_and_made_again(tmp_path, name, workers):
    trace = tmp_path / "trace"
    nodes, store = chain_plan(str(trace), 0), Store(tmp_path / "store")
    go(nodes, tmp_path, workers=workers)
    flip(chain_of(store, nodes, name))
    trace.write_text("")
    outcome, view = go(nodes, tmp_path, workers=workers)
    key = next(n.key for n in nodes.nodes if n.name == name)
    assert view.notes == [
        f"artifact {key[:12]} ({name}) is damaged: chain.txt has other bytes than when it was finished; it is made again"
    ]
    assert outcome.ok
    assert outcome.status[name] is StageStatus.DONE
    assert set(outcome.status.values()) == {StageStatus.DONE, StageStatus.CACHED}, (
        "what others made from it when it was whole stays"
    )
    assert results(store, nodes) == expected()


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_in_a_large_input_is_found_by_the_stage_that_uses_it(tmp_path, monkeypatch, workers):
    """A glance at the start of the run compares sizes; the worker compares bytes."""
    nodes, store = chain_plan("", 0), Store(tmp_path / "store")
    go(nodes, tmp_path, workers=workers)
    store.discard(next(n.key for n in nodes.nodes if n.name == "arms/a/seed-2"))
    flip(chain_of(store, nodes, "start"))
    monkeypatch.setattr("evenhand.runner.repairs.GLANCE", 0)
    outcome, view = go(nodes, tmp_path, workers=workers)
    assert [n.partition(" is damaged")[2] for n in view.notes] == [
        ": chain.txt has other bytes than when it was finished; it is made again"
    ]
    assert outcome.ok
    assert results(store, nodes) == expected()


def test_what_is_damaged_again_after_it_was_made_again_fails(tmp_path):
    nodes, store = chain_plan("", 0), Store(tmp_path / "store")
    go(nodes, tmp_path)
    start = next(n for n in nodes.nodes if n.name == "start")
    board = RunState(nodes.nodes)
    repairs = Repairs(board, store)
    board.set("start", StageStatus.DONE)
    assert repairs.spoilt(start.key) == [start]
    board.set("start", StageStatus.RUNNING)
    assert repairs.spoilt(start.key) == [], "it is on its way: who needs it waits"
    board.set("start", StageStatus.DONE)
    assert repairs.spoilt(start.key) is None


def test_bytes_that_change_when_they_are_made_again_are_said(tmp_path):
    node = Node(name="start", kind="chain", key=KEY)
    store, board = Store(tmp_path, reserve=0), RunState([node])
    for weights in ("as first made", "rounded otherwise"):
        with store.open(KEY, META) as folder:
            (folder / "model.safetensors").write_text(weights)
            (folder / "ledger.json").write_text(weights)
        if weights == "as first made":
            repairs = Repairs(board, store)
            flip(store.path(KEY) / "ledger.json")
            assert "ledger.json has other bytes" in repairs.look(board.cells["start"])
            assert not store.has(KEY)
    assert repairs.differs(node).startswith("start was made again and model.safetensors is not what it was")


def test_artifacts_without_digests_are_used_and_said_once(tmp_path):
    nodes, store = chain_plan("", 0), Store(tmp_path / "store")
    go(nodes, tmp_path)
    for node in nodes.nodes:
        as_of_before(store, node.key)
    outcome, view = go(nodes, tmp_path)
    assert set(outcome.status.values()) == {StageStatus.CACHED}
    assert view.notes == ["3 artifacts were made before artifacts had digests: damage to them cannot be seen"]
