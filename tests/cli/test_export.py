"""`evenhand export` from the command line, on a tiny finished run."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest

import evenhand.cli
from tests.export.tiny_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("cli-export") / "run")


@pytest.fixture
def export(cli):
    return partial(cli, "export")


def test_a_model_with_its_card(export, run, tmp_path):
    options = ("--check", 3, "--license", "mit", "--device", "cpu")
    code, out, err = export(run, "--arm", "dpo", "--seed", 1, "--out", tmp_path / "m", *options)
    assert code == 0, err
    assert "of 3 answers: log-probs differ by at most" in out
    assert f"written: {tmp_path / 'm'}" in out
    assert "license: mit" in (tmp_path / "m" / "README.md").read_text()
    assert json.loads((tmp_path / "m" / "evenhand.json").read_text())["check"]["prompts"] == 3


def test_an_exported_model_can_be_talked_to(export, run, tmp_path, capsys, monkeypatch):
    export(run, "--arm", "sft", "--out", tmp_path / "m", "--device", "cpu")
    monkeypatch.setattr(sys, "argv", ["evenhand", "generate", str(tmp_path / "m"), "--prompt", "red", "--max-tokens", "4"])
    with pytest.raises(SystemExit) as ended:
        evenhand.cli.main()
    assert not ended.value.code
    assert "tokens]" in capsys.readouterr().out


def test_several_seeds_need_a_name_and_best_on_validation_is_not_offered(export, run, tmp_path):
    code, _, err = export(run, "--arm", "dpo", "--out", tmp_path / "m")
    assert code == 2
    assert "--seed 0 (there are 0, 1)" in err
    code, _, err = export(run, "--arm", "dpo", "--seed", "best-on-validation", "--out", tmp_path / "m")
    assert code == 2
    assert not (tmp_path / "m").exists()


def test_pairs_and_samples(export, run, tmp_path):
    code, out, err = export(run, "--pairs", "--samples", "--out", tmp_path / "d")
    assert code == 0, err
    assert "24 rows: pairs.jsonl" in out
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["heldout_pairs.jsonl", "pairs.jsonl", "samples.jsonl"]
    code, out, err = export(run, "--pairs", "--arm", "kept", "--out", tmp_path / "own")
    assert code == 0, err
    assert "19 rows: pairs.jsonl" in out


def test_gguf_without_a_converter_leaves_the_folder_and_the_command(export, run, tmp_path):
    code, out, err = export(run, "--arm", "dpo", "--seed", 0, "--out", tmp_path / "m", "--gguf", "--device", "cpu")
    assert code == 2
    assert f"written: {tmp_path / 'm'}" in out
    assert "convert_hf_to_gguf.py" in err
    assert (tmp_path / "m" / "model.safetensors").is_file()


def test_what_cannot_be_meant_is_refused_before_anything_is_written(export, run, tmp_path):
    for arguments, message in (
        ((), "say what to export"),
        (("--arm", "dpo", "--reward-model", "rm"), "say what to export"),
        (("--pairs", "--push", "me/x"), "write data, not models"),
        (("--reward-model", "rm", "--gguf"), "GGUF is for whole language models"),
        (("--arm", "dpo", "--seed", 0, "--public"), "add --push NAME"),
        (("--arm", "dpo", "--seed", 0, "--adapter"), "dpo has no adapter"),
        (("--arm", "dpo", "--seed", 0, "--adapter", "--dtype", "float16"), "copied as it is"),
    ):
        code, _, err = export(run, *arguments, "--out", tmp_path / "m")
        assert code == 2
        assert message in err
        assert not (tmp_path / "m").exists()


def test_a_push_goes_through_the_hubs_own_client(export, run, tmp_path, monkeypatch):
    asked = []

    def push(folder, name, *, public):
        asked.append((folder, name, public))
        return "https://huggingface.co/me/x"

    monkeypatch.setattr("evenhand.export.hub.push", push)
    code, out, err = export(run, "--reward-model", "rm", "--out", tmp_path / "m", "--push", "me/x", "--device", "cpu")
    assert code == 0, err
    assert asked == [(tmp_path / "m", "me/x", False)]
    assert "pushed, private: https://huggingface.co/me/x" in out
    shutil.rmtree(tmp_path / "m")
