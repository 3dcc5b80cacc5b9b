"""What lies in a store, who uses it, and what may be removed: `evenhand store`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from fake_stages import chain_plan
from test_damage import flip
from test_run import go
from test_store import KEY, META, fail, make
from typer.testing import CliRunner

from evenhand.cli import app
from evenhand.store.locks import locked
from evenhand.store.prune import candidates, remove
from evenhand.store.runs import known_runs, remember
from evenhand.store.store import Store
from evenhand.store.survey import State, size_of, survey

OTHER, HALF = "cd" * 16, "ef" * 16


@pytest.fixture
def store(tmp_path):
    """One finished artifact that a run uses, one that nobody does, a half-finished one, a dead process's lock, some trash."""
    made = Store(tmp_path / "store", reserve=0)
    make(made, KEY, "twelve bytes")
    make(made, OTHER, "xxx")
    fail(made, HALF)
    (made.root / f"{HALF}.lock").write_text("4711 elsewhere\n")
    (made.root / f"{'01' * 16}.trash").mkdir()
    (made.root / "judge-cache.jsonl").write_text("{}\n")
    (tmp_path / "run").mkdir()
    remember(made, tmp_path / "run", {"sft": KEY})
    return made


def said(*words: object, code: int = 0) -> str:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["store", *map(str, words)])
    assert done.exit_code == code, done.output + repr(done.exception)
    return done.output


def test_everything_in_a_store_has_a_state_and_its_users(store, tmp_path):
    found = survey(store)
    assert {(e.key, e.state): (e.name, e.runs) for e in found.entries} == {
        (KEY, State.FINISHED): ("sft", (tmp_path / "run",)),
        (OTHER, State.FINISHED): ("sft", ()),
        (HALF, State.HALF): ("sft", ()),
        ("01" * 16, State.TRASH): ("", ()),
    }
    assert [(lock.path.name, lock.stale, lock.holder) for lock in found.locks] == [
        (f"{HALF}.lock", True, "process 4711 on elsewhere")
    ]
    assert found.other == {"judge-cache.jsonl": 3}
    assert found.size == sum(e.size for e in found.entries) + 3


def test_what_is_being_written_has_its_writer_and_is_never_removed(store):
    with store.open("23" * 16, META):
        found = survey(store)
        (entry,) = [e for e in found.entries if e.key == "23" * 16]
        assert entry.state is State.WRITTEN
        assert entry.holder.startswith(f"process {os.getpid()} on ")
        assert entry.key not in {c.entry.key for c in candidates(found, unused=True, half=True) if c.entry}
        assert "23" * 16 not in {c.path.stem for c in candidates(found)}


def test_files_that_a_stage_at_work_removes_meanwhile_are_none(store, monkeypatch):
    """A look at a store that a run is writing in: names are listed, and gone when they are looked at."""
    lstat = os.lstat

    def gone(path):
        return lstat(path if not str(path).endswith("f.txt") else f"{path}.gone")

    monkeypatch.setattr(os, "lstat", gone)
    monkeypatch.setattr("evenhand.store.survey.file_state", lambda path: None)
    found = survey(store)
    assert {e.key: e.size for e in found.entries}[KEY] == sum(lstat(p).st_size for p in store.path(KEY).glob("*.json"))
    assert found.other == {}


@pytest.mark.parametrize(
    ("asked", "gone"),
    [
        ({}, [f"{'01' * 16}.trash", f"{HALF}.partial", f"{HALF}.lock"]),
        ({"unused": True}, [f"{'01' * 16}.trash", OTHER, f"{HALF}.partial", f"{HALF}.lock"]),
    ],
)
def test_only_what_nobody_wants_goes(store, asked, gone):
    before = {p.name for p in store.root.iterdir()}
    found = survey(store)
    chosen = candidates(found, **asked)
    assert [c.path.name for c in chosen] == gone
    assert remove(found, chosen) == []
    assert before - {p.name for p in store.root.iterdir()} == set(gone)
    assert store.damage(KEY) == ""


def test_half_finished_work_of_a_run_is_kept_until_it_is_asked_for(store, tmp_path):
    remember(store, tmp_path / "run", {"sft": KEY, "arm": HALF})
    found = survey(store)
    assert HALF not in {c.entry.key for c in candidates(found) if c.entry}
    assert remove(found, candidates(found, half=True)) == []
    assert not store.partial(HALF).exists()


def test_a_candidate_that_someone_began_to_write_stays(store):
    found = survey(store)
    chosen = candidates(found)
    with locked(store.root / f"{HALF}.lock"):
        left = remove(found, chosen)
        assert [c.path.name for c in left] == [f"{HALF}.partial", f"{HALF}.lock"]
        assert store.partial(HALF).is_dir()


def test_a_run_whose_folder_is_gone_uses_nothing(store, tmp_path):
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    found = survey(store)
    assert [r.folder for r in found.gone] == [tmp_path / "run"]
    assert {c.path.name for c in candidates(found, unused=True)} >= {KEY, OTHER, found.gone[0].note.name}


def test_a_run_directory_that_holds_its_store_may_be_moved(tmp_path):
    store = Store(tmp_path / "run" / "store", reserve=0)
    make(store)
    remember(store, tmp_path / "run", {"sft": KEY})
    (tmp_path / "run").rename(tmp_path / "moved")
    (known,) = known_runs(Store(tmp_path / "moved" / "store"))
    assert known.folder == tmp_path / "moved"
    assert not known.gone


@pytest.mark.parametrize("text", ["", "[]", '{"run": 3}', '{"run": "x", "nodes": []}', "\x00"])
def test_a_damaged_note_of_a_run_is_passed_over(store, text):
    (store.root / "run-0123456789abcdef.json").write_text(text)
    assert len(known_runs(store)) == 1


def test_a_file_with_several_names_counts_once(tmp_path):
    (tmp_path / "a").write_text("12345")
    os.link(tmp_path / "a", tmp_path / "b")
    assert size_of(tmp_path) == 5
    assert size_of(tmp_path, but=frozenset({(tmp_path / "a").stat().st_ino})) == 0


# --- the command -----------------------------------------------------------------------------------------------------


def test_two_runs_on_one_store_are_told_apart(tmp_path, monkeypatch):
    nodes = chain_plan("", 0)
    (tmp_path / "third").mkdir()
    go(nodes, tmp_path / "first", workers=0, store=tmp_path / "store")
    go(chain_plan("", 0, steps=3), tmp_path / "second", workers=0, store=tmp_path / "store")
    go(nodes, tmp_path / "third", workers=0, store=tmp_path / "store")
    monkeypatch.setenv("EVENHAND_STORE", str(tmp_path / "store"))
    lines = said("list").splitlines()
    assert lines[0].strip() == "6 artifacts"
    cells = [line.split() for line in lines if line.startswith(" start ")]
    assert sorted((row[2], *row[5:7]) for row in cells) == [("finished", "1", "2"), ("finished", "2", "2")], "runs, used by"
    assert f"run {tmp_path / 'second'}: 3 artifacts" in "\n".join(lines)
    assert any("3 of them" in line and line.endswith("are shared with third") for line in lines)
    shutil.rmtree(tmp_path / "second")
    shown = said("prune", "--unused")
    assert "Nothing was removed: with --yes" in shown
    assert shown.count("no run uses it") == 3
    assert "are free again" in said("prune", "--unused", "--yes")
    assert said("list").splitlines()[0].strip() == "3 artifacts"
    assert said("prune", "--unused") == "There is nothing to remove.\n"


def test_what_lies_beside_artifacts_is_said_once_for_all(store):
    for key, text in (("ab" * 16, "123"), ("cd" * 16, "1234")):
        (store.root / f"{key}.spent.json").write_text(text)
    (store.root / "note.txt").write_text("12")
    lines = said("list", store.root).splitlines()
    assert "  KEY.spent.json (2): 7 B" in lines
    assert "  note.txt: 2 B" in lines


def test_verify_names_what_is_damaged(store):
    assert said("verify", store.root) == "2 of 2 finished artifacts are what was made\n"
    flip(store.path(KEY) / "f.txt")
    shown = said("verify", store.root, code=3)
    assert f"artifact {KEY[:12]} (sft) is damaged: f.txt has other bytes than when it was finished" in shown
    assert "1 damaged" in shown


def test_without_a_known_run_nothing_finished_is_removed(store):
    for known in known_runs(store):
        known.note.unlink()
    done = CliRunner().invoke(app, ["store", "prune", "--unused", "--yes", str(store.root)])
    assert "no run is known to use this store" in str(done.exception)
    assert store.has(KEY)


@pytest.mark.parametrize("where", ["nowhere", ""])
def test_a_store_that_is_not_there_is_said(tmp_path, monkeypatch, where):
    monkeypatch.delenv("EVENHAND_STORE", raising=False)
    done = CliRunner().invoke(app, ["store", "list", *([str(tmp_path / where)] if where else [])])
    assert ("there is no such folder" if where else "which store?") in str(done.exception)


def test_a_folder_of_other_things_is_no_store_and_an_empty_one_is(tmp_path):
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    done = CliRunner().invoke(app, ["store", "verify", str(tmp_path / "runs")])
    assert "is no store and no run directory" in str(done.exception)
    (tmp_path / "new").mkdir()
    assert said("verify", tmp_path / "new") == "0 of 0 finished artifacts are what was made\n"


def test_the_listing_changes_nothing(store):
    def everything() -> list[tuple[str, int]]:
        return sorted((str(p), p.stat().st_mtime_ns) for p in Path(store.root).rglob("*"))

    before = everything()
    said("list", store.root)
    said("prune", store.root)
    assert everything() == before
