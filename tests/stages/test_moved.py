"""A run directory packed, unpacked elsewhere, and used there: nothing in it leads back to where it was made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from evenhand.cli import app
from evenhand.errors import UserError
from evenhand.models import adapter_files
from evenhand.models.load import load_policy, merge_adapter
from evenhand.run_experiment import execute, prepare
from evenhand.store import pointer
from evenhand.store.store import Store
from tests.stages.performed import SMALL

TEXT = (
    f"{SMALL}name: moved"
    + """
sft: {train: {steps: 2, prompts_per_step: 4, learning_rate: 1.0e-3}}
train: {steps: 2, prompts_per_step: 3, learning_rate: 1.0e-2, adapter: {rank: 2}}
arms:
  start: {method: start}
  dpo: {method: dpo}
  broken: {method: rloo, reward: {kind: function, path: "CODE/reward.py:broken"}, completions_per_prompt: 2}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)
BROKEN = "from pathlib import Path\n\n\ndef broken(prompt, completion):\n    raise RuntimeError(f'no {Path(__file__)} today')\n"


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """(where it was made, where it is now): made, packed, removed, unpacked."""
    here, there, code = (tmp_path_factory.mktemp(name) for name in ("here", "there", "code"))
    (here / "moved.yaml").write_text(TEXT.replace("CODE", str(code)))
    (code / "reward.py").write_text(BROKEN)
    outcome, results = execute(prepare(str(here / "moved.yaml"), out=here / "run"), workers=0)
    assert [n for n, s in outcome.status.items() if s == "failed"] == ["arms/broken/seed-0"]
    assert set(results.arms) >= {"start", "dpo"}
    assert CliRunner().invoke(app, ["report", str(here / "run")]).exit_code == 0
    packed = shutil.make_archive(str(there / "run"), "zip", here / "run")
    shutil.rmtree(here)
    shutil.unpack_archive(packed, there / "a run")
    return here, there / "a run"


def test_no_file_names_the_folder_it_was_made_in(moved):
    here, run = moved
    telling = [p for p in run.rglob("*") if p.is_file() and "logs" not in p.parts and str(here).encode() in p.read_bytes()]
    assert [p.relative_to(run) for p in telling if p.name != "experiment.json"] == []
    artifacts = [p for p in (run / "store").rglob("*") if p.is_file() and str(here.parent).encode() in p.read_bytes()]
    assert artifacts == [], "the reward's path, which the experiment names, is not in them either"
    failed = json.loads((run / "results.json").read_text())["failed"]
    assert {f["node"] for f in failed} >= {"arms/broken/seed-0"}
    assert "no reward.py today" in next(f["error"] for f in failed if f["node"] == "arms/broken/seed-0")


def test_everything_is_still_what_was_made(moved):
    _, run = moved
    store = Store(run / "store")
    keys = [n["key"] for n in json.loads((run / "experiment.json").read_text())["nodes"]]
    assert {key: why for key in keys if store.has(key) and (why := store.damage(key))} == {}


def test_report_and_answers_are_made_there(moved, tmp_path):
    _, run = moved
    (run / "report.html").unlink()
    done = CliRunner().invoke(app, ["report", str(run)])
    assert done.exit_code == 0, done.output
    assert (run / "report.html").is_file()
    (tmp_path / "prompts.txt").write_text("Write a note.\n")
    for model in ("arms/dpo/seed-0", "arms/start/seed-0", "arms/dpo/seed-0/adapter"):
        out = tmp_path / "answers.jsonl"
        words = ["generate", str(run / model), "--prompts", str(tmp_path / "prompts.txt"), "--out", str(out), "--max-tokens", "4"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (model, done.output, done.exception)
        assert len(out.read_text().splitlines()) == 1
        out.unlink()


def test_the_adapter_finds_its_base_from_the_run_and_from_the_store(moved, tmp_path):
    _, run = moved
    shown = run / "arms" / "dpo" / "seed-0"
    key = next(n["key"] for n in json.loads((run / "experiment.json").read_text())["nodes"] if n["name"] == "base")
    base = run / "store" / key / "model"
    for place in (shown, *(p.parent for p in (run / "store").glob("*/adapter"))):
        assert adapter_files.named_base(place / "adapter") == f"../../{key}/model"
        assert Path(adapter_files.base_of(place / "adapter")).resolve() == base.resolve()
    plain = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.tensor([[2, 4, 7, 9, 6, 5, 8]])
    live = peft.PeftModel.from_pretrained(plain, str(shown / "adapter"))(ids).logits
    merge_adapter(shown / "adapter", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(ids).logits
    assert torch.allclose(live, merged, atol=1e-5)
    assert torch.equal(load_policy(shown / "adapter").hf(ids).logits, merged)
    assert not list(run.rglob("dpo/seed-0/model")), "the adapter alone is kept"


def test_an_adapter_alone_says_that_its_base_is_not_here(moved, tmp_path):
    _, run = moved
    shutil.copytree(run / "arms/dpo/seed-0/adapter", tmp_path / "one" / "two" / "adapter")
    with pytest.raises(UserError, match=r"(?s)base of this adapter cannot be found.*fix: name the model it was trained on"):
        adapter_files.base_of(tmp_path / "one" / "two" / "adapter")


# --- a model from elsewhere ------------------------------------------------------------------------------------------


@pytest.fixture
def pointing(moved, tmp_path):
    """(model folder, artifact that points at it)"""
    _, run = moved
    shutil.copytree(run / "arms/start/seed-0/model", tmp_path / "model")
    (tmp_path / "artifact").mkdir()
    pointer.point(tmp_path / "artifact", tmp_path / "model")
    return tmp_path / "model", tmp_path / "artifact"


def test_a_model_elsewhere_is_what_it_was(pointing):
    model, artifact = pointing
    assert pointer.model_path(artifact) == model.resolve()
    assert pointer.damage(artifact) == ""


@pytest.mark.parametrize(
    ("hurt", "said"),
    [
        (lambda m: (m / "model.safetensors").write_bytes(b"x" * (m / "model.safetensors").stat().st_size), "has other bytes"),
        (lambda m: (m / "config.json").unlink(), "config.json is missing"),
        (lambda m: m.rename(m.with_name("gone")), "is not there"),
    ],
)
def test_a_model_elsewhere_that_changed_is_named(pointing, hurt, said):
    model, artifact = pointing
    (model / "model.safetensors").chmod(0o644)
    hurt(model)
    assert said in pointer.damage(artifact)


def test_a_change_that_keeps_the_time_of_change_is_refused(pointing, tmp_path):
    """The plan knows files by size and time; the stage reads them."""
    from evenhand.stages.base import ModelSource, settle
    from evenhand.store.fingerprint import model_fingerprint

    model, _ = pointing
    known = ModelSource(path=str(model), fingerprint=model_fingerprint(model))
    (tmp_path / "out").mkdir()
    settle(model, tmp_path / "out", known)
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (model / "model.safetensors").chmod(0o644)
    (model / "model.safetensors").write_bytes(bytes(data))
    with pytest.raises(UserError, match="the model is not what it was when it was last read"):
        settle(model, tmp_path / "out", known)
