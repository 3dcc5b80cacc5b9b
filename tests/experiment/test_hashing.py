from __future__ import annotations

import hashlib
import math
import os

import pytest

from evenhand.errors import UserError
from evenhand.store.fingerprint import canonical, digest, file_fingerprint, folder_fingerprint, model_fingerprint


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EVENHAND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fingerprints"


def test_the_order_of_keys_does_not_matter_that_of_lists_does():
    assert digest({"a": [1, 2], "b": None}) == digest({"b": None, "a": (1, 2)})
    assert digest([1, 2]) != digest([2, 1])


def test_canonical_is_known_text():
    assert canonical({"z": 1, "é": [1e-4, True, None], "a": {}}) == '{"a":{},"z":1,"é":[0.0001,true,null]}'


def test_what_has_no_json_form_is_an_error():
    with pytest.raises(TypeError):
        digest({"a": {1, 2}})


def test_infinity_has_a_name_of_its_own():
    assert digest(math.inf) != digest(-math.inf) != digest("Infinity")


def test_a_files_name_is_the_hash_of_its_bytes(tmp_path):
    (tmp_path / "f").write_bytes(b"abc" * 1_000_000)
    assert file_fingerprint(tmp_path / "f") == hashlib.blake2b(b"abc" * 1_000_000, digest_size=16).hexdigest()


def test_a_settled_file_is_read_once(tmp_path, monkeypatch, cache):
    path = tmp_path / "f"
    path.write_text("x")
    os.utime(path, (1, 1))
    name = file_fingerprint(path)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr("evenhand.store.fingerprint.content_digest", lambda path: pytest.fail("was read again"))
    assert file_fingerprint(path) == name


def test_a_fresh_file_is_not_remembered(tmp_path, cache):
    path = tmp_path / "f"
    path.write_text("x")
    first = file_fingerprint(path)
    path.write_text("y")  # same size, and perhaps the same mtime
    assert file_fingerprint(path) != first
    assert not cache.exists()


def test_a_changed_file_gets_a_new_name(tmp_path):
    path = tmp_path / "f"
    path.write_text("x")
    os.utime(path, (1, 1))
    first = file_fingerprint(path)
    path.write_text("y")
    os.utime(path, (2, 2))
    assert file_fingerprint(path) != first


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "blocked").write_text("a file where a folder should be")
    monkeypatch.setenv("EVENHAND_CACHE", str(tmp_path / "blocked"))
    path = tmp_path / "f"
    path.write_text("x")
    os.utime(path, (1, 1))
    assert file_fingerprint(path) == hashlib.blake2b(b"x", digest_size=16).hexdigest()


def test_a_folders_name_depends_on_paths_and_bytes(tmp_path):
    def made(name, **files):
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        return folder_fingerprint(tmp_path / name)

    assert made("a", x="1", y="2") == made("b", x="1", y="2")
    assert made("c", x="2", y="1") != made("a")
    assert made("d", x="12") != made("e", x="1", y="2")


def test_a_models_name_ignores_what_does_not_compute(tmp_path):
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text(name)
    before = model_fingerprint(tmp_path)
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / "optimizer.pt").write_text("state")
    assert model_fingerprint(tmp_path) == before
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert model_fingerprint(tmp_path) != before


def test_an_empty_model_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no model is in this folder"):
        model_fingerprint(tmp_path)
