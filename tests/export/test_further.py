"""Where an exported folder goes next: the Hub, GGUF, Ollama. Nothing here needs a network."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError

from evenhand.errors import UserError
from evenhand.export.gguf import convert, modelfile, verified
from evenhand.export.hub import push


class Hub:
    """Stands in for HfApi: remembers what it is asked, and answers as a repository of `private`."""

    def __init__(self, *, private: bool | None = None, fails: Exception | None = None) -> None:
        self.exists, self.fails, self.asked, self.uploaded = private, fails, [], []

    def create_repo(self, name: str, *, repo_type: str, private: bool, exist_ok: bool) -> Any:
        self.asked.append((name, private))
        self.exists = private if self.exists is None else self.exists
        return SimpleNamespace(repo_id=f"me/{name}", __str__=lambda: "")

    def model_info(self, name: str) -> Any:
        return SimpleNamespace(private=self.exists)

    def upload_folder(self, **given: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.uploaded.append((given["repo_id"], given["folder_path"]))


def test_a_new_repository_is_private_unless_asked_otherwise(tmp_path):
    hub = Hub()
    push(tmp_path, "name", api=hub)
    assert hub.asked == [("name", True)]
    assert hub.uploaded == [("me/name", tmp_path)]
    hub = Hub()
    push(tmp_path, "name", public=True, api=hub)
    assert hub.asked == [("name", False)]


def test_a_public_repository_is_not_written_to_by_accident(tmp_path):
    hub = Hub(private=False)
    with pytest.raises(UserError, match="me/name is public"):
        push(tmp_path, "name", api=hub)
    assert hub.uploaded == []
    push(tmp_path, "name", public=True, api=hub)
    assert len(hub.uploaded) == 1


def test_what_the_hub_refuses_is_said_without_the_token(tmp_path, monkeypatch, capsys):
    secret = "hf_" + "x" * 34
    monkeypatch.setenv("HF_TOKEN", secret)
    response = httpx.Response(403, request=httpx.Request("POST", "https://huggingface.co/api"))
    refused = HfHubHTTPError(f"403 Forbidden: token {secret} may not write\nRequest ID: 1", response=response)
    with pytest.raises(UserError, match="403 Forbidden") as said:
        push(tmp_path, "org/name", api=Hub(fails=refused))
    assert secret not in str(said.value)
    assert said.value.__cause__ is None
    assert said.value.__suppress_context__
    assert str(tmp_path) in said.value.why
    assert secret not in "".join(capsys.readouterr())


# GGUF -------------------------------------------------------------------------------------------------------------------

WRITES = """import sys
folder, out = sys.argv[1], sys.argv[sys.argv.index("--outfile") + 1]
open(out, "wb").write({content!r} + sys.argv[sys.argv.index("--outtype") + 1].encode())
"""


def converter(folder: Path, text: str) -> Path:
    path = folder / "convert_hf_to_gguf.py"
    path.write_text(text)
    return path


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "my model"
    folder.mkdir()
    return folder


@pytest.fixture
def no_gguf_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def test_the_converter_is_run_on_the_folder(model, tmp_path, no_gguf_package):
    path, checked = convert(model, converter(tmp_path, WRITES.format(content=b"GGUF")), dtype="bfloat16")
    assert path == model / "model.gguf"
    assert path.read_bytes() == b"GGUFbf16"
    assert "begins as GGUF does" in checked


def test_a_file_that_is_not_gguf_is_removed(model, tmp_path, no_gguf_package):
    with pytest.raises(UserError, match="wrote no GGUF file") as found:
        convert(model, converter(tmp_path, WRITES.format(content=b"GGML")), dtype="float32")
    assert "GGML" in found.value.why
    assert list(model.iterdir()) == []


def test_a_converter_that_fails_or_hangs_is_told_by_its_own_words(model, tmp_path):
    failing = converter(tmp_path, "import sys; print('one\\ntwo', file=sys.stderr); sys.exit('BPE pre-tokenizer not recognized')")
    with pytest.raises(UserError, match="ended with code 1") as found:
        convert(model, failing, dtype="float32")
    assert "BPE pre-tokenizer not recognized" in found.value.why
    assert f"{failing} '{model}' --outfile" in found.value.fix
    with pytest.raises(UserError, match=r"stopped after 0\.2 s"):
        convert(model, converter(tmp_path, "import time; time.sleep(60)"), dtype="float32", timeout=0.2)
    assert list(model.iterdir()) == []


def test_without_a_converter_the_command_to_run_is_said(model, tmp_path):
    with pytest.raises(UserError, match="no converter is named") as found:
        convert(model, None, dtype="float16")
    assert f"python convert_hf_to_gguf.py '{model}' --outfile '{model}/model.gguf' --outtype f16" in found.value.fix
    with pytest.raises(UserError, match="there is no such file"):
        convert(model, tmp_path / "nowhere.py", dtype="float16")


def test_template_and_eos_of_a_gguf_file_are_compared(tiny, tmp_path):
    gguf = pytest.importorskip("gguf")
    folder = tiny / "arms" / "dpo" / "seed-0" / "model"
    template = (folder / "chat_template.jinja").read_text()
    for name, written, eos, fits in (("a", template, 3, True), ("b", template + " ", 3, False), ("c", template, 2, False)):
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        writer.add_chat_template(written)
        writer.add_eos_token_id(eos)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        if fits:
            assert "are the model's" in verified(tmp_path / name, folder)
        else:
            with pytest.raises(UserError, match="differs"):
                verified(tmp_path / name, folder)


def test_a_modelfile_stops_where_the_model_stops():
    text = modelfile(("<|end|>", "</s>", 'a"b'), {"temperature": 0.8, "top_p": 0.9, "top_k": 0})
    stops = ['PARAMETER stop "<|end|>"', 'PARAMETER stop "</s>"']
    sampler = ["PARAMETER temperature 0.8", "PARAMETER top_p 0.9", "PARAMETER top_k 0"]
    assert text.splitlines()[1:] == ["FROM ./model.gguf", *stops, *sampler]
