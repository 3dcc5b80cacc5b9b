"""Files that appear whole or not at all."""

from __future__ import annotations

import os

import pytest

from evenhand.store.whole import whole, write_json, write_whole


def test_the_file_is_the_old_one_until_the_block_ends(tmp_path):
    (path := tmp_path / "a.json").write_text("old")
    with whole(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    (path := tmp_path / "a.json").write_text("old")

    def stopped():
        with whole(path) as partial:
            partial.write_text("ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        stopped()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_a_kill_leaves_is_named_so_that_the_store_removes_it(tmp_path):
    with whole(tmp_path / "a.json") as partial:
        partial.write_text("")
        assert partial.name == f"a.json.{os.getpid()}.partial"


def test_where_nothing_can_be_written_the_writers_own_error_is_raised(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        write_whole(tmp_path / "absent" / "a.txt", "text")


def test_equal_values_are_equal_bytes(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": "ä"})
    write_json(tmp_path / "b.json", {"a": "ä", "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes() == b'{\n "a": "\xc3\xa4",\n "b": 1\n}\n'


def test_a_value_that_json_lacks_leaves_the_old_file(tmp_path):
    (path := tmp_path / "a.json").write_text("old")
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == "old"
