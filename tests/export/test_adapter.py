"""An adapter as peft wrote it, copied with a card, and put on its base again before it is believed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from evenhand.errors import UserError
from evenhand.export.adapter import export_adapter
from evenhand.export.model import export
from evenhand.export.subject import find_arm
from evenhand.models.adapter_config import Adapter
from evenhand.models.adapter_models import save_adapted
from evenhand.models.adapters import attach
from evenhand.models.load import load_policy, load_tokenizer, save
from tests.models.test_adapters import moved

peft = pytest.importorskip("peft")


@pytest.fixture
def adapted(own_run) -> Path:
    """The run with an arm dpo whose seed 0 is an adapter on the run's start, merged into its model."""
    start, place = own_run / "store" / ("5f" * 16) / "model", own_run / "arms" / "dpo" / "seed-0"
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(start), config)
    model.save_pretrained(place / "adapter")
    model.merge_and_unload().save_pretrained(place / "model")
    given = json.loads((place / "adapter" / "adapter_config.json").read_text())
    assert given["base_model_name_or_path"] == str(start)
    return own_run


def test_the_adapter_on_its_base_is_the_runs_model(adapted, tmp_path):
    made = export_adapter(find_arm(adapted, "dpo", 0), tmp_path / "out", device="cpu")
    start, merged = adapted / "store" / ("5f" * 16) / "model", adapted / "arms" / "dpo" / "seed-0" / "model"
    plain = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(start), made.folder)
    ids = torch.tensor([[2, 4, 7, 9, 6, 5, 8]])
    run = AutoModelForCausalLM.from_pretrained(merged)(ids).logits
    assert torch.allclose(plain(ids).logits, run, atol=1e-4)
    assert not torch.allclose(AutoModelForCausalLM.from_pretrained(start)(ids).logits, run, atol=1e-2)
    assert made.checked.numbers["max_dlogp"] < 1e-4
    assert AutoTokenizer.from_pretrained(made.folder).chat_template
    assert json.loads((made.folder / "generation_config.json").read_text())["eos_token_id"] == [3, 6]


def test_a_base_of_this_machine_is_not_named(adapted, tmp_path, recwarn):
    made = export_adapter(find_arm(adapted, "dpo", 0), tmp_path / "out", device="cpu")
    assert [str(w.message) for w in recwarn if issubclass(w.category, FutureWarning)] == [], "nothing of the libraries' own"
    assert json.loads((made.folder / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    for path in made.folder.iterdir():
        if path.suffix in (".json", ".md"):
            assert str(adapted) not in path.read_text(), path.name
    data = ModelCard.load(made.folder / "README.md").data
    assert (data.library_name, data.base_model) == ("peft", None), "it was trained from the run's start, not from org/base"
    text = (made.folder / "README.md").read_text()
    assert "A PEFT adapter" in text
    assert "It belongs on the run's supervised model, and on no other." in text
    config = json.loads((made.folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_an_adapter_that_does_not_make_the_model_is_not_kept(adapted, tmp_path):
    weights = adapted / "arms" / "dpo" / "seed-0" / "adapter" / "adapter_model.safetensors"
    save_file({k: v * 1.1 for k, v in load_file(weights).items()}, weights, {"format": "pt"})
    with pytest.raises(UserError, match="log-probs differ"):
        export_adapter(find_arm(adapted, "dpo", 0), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_without_an_adapter_or_its_base(adapted, tmp_path):
    with pytest.raises(UserError, match="dpo has no adapter"):
        export_adapter(find_arm(adapted, "dpo", 1), tmp_path / "out", device="cpu")
    path = adapted / "arms" / "dpo" / "seed-0" / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "/nowhere/base"}))
    with pytest.raises(UserError, match="base is gone"):
        export_adapter(find_arm(adapted, "dpo", 0), tmp_path / "out", device="cpu")


@pytest.fixture
def trained_here(own_run, tmp_path) -> tuple[Path, Path]:
    """The run with an arm dpo whose seed 0 is kept as its adapter alone, and the same model whole."""
    start, place = own_run / "store" / ("5f" * 16), own_run / "arms" / "dpo" / "seed-0"
    policy, tokenizer = load_policy(start / "model"), load_tokenizer(start / "model")
    attach(policy, Adapter(rank=2), seed=0)
    save(moved(policy), tokenizer, tmp_path / "whole")
    shutil.rmtree(place / "model")
    save_adapted(policy, tokenizer, place / "adapter", start=start / "model", artifact=start)
    return own_run, tmp_path / "whole"


def test_what_is_exported_of_an_adapter_is_the_whole_model(trained_here, tmp_path):
    run, whole = trained_here
    made = export(find_arm(run, "dpo", 0), tmp_path / "out", device="cpu")
    found, expected = load_file(made.folder / "model.safetensors"), load_file(whole / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[k], expected[k]) for k in found)
    assert not (made.folder / "adapter_config.json").exists()
    for path in made.folder.iterdir():
        if path.suffix in (".json", ".md"):
            assert str(run) not in path.read_text(), path.name


def test_so_is_its_adapter(trained_here, tmp_path):
    run, whole = trained_here
    made = export_adapter(find_arm(run, "dpo", 0), tmp_path / "out", device="cpu")
    start = AutoModelForCausalLM.from_pretrained(run / "store" / ("5f" * 16) / "model")
    ids = torch.tensor([[2, 4, 7, 9, 6, 5, 8]])
    plain = peft.PeftModel.from_pretrained(start, made.folder)(ids).logits
    assert torch.allclose(plain, AutoModelForCausalLM.from_pretrained(whole)(ids).logits, atol=1e-4)
