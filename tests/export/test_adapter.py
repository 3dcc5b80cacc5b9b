"""An adapter as peft wrote it, copied with a card, and put on its base again before it is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from evenhand.errors import UserError
from evenhand.export.adapter import export_adapter
from evenhand.export.subject import find_arm

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


def test_a_base_of_this_machine_is_not_named(adapted, tmp_path):
    made = export_adapter(find_arm(adapted, "dpo", 0), tmp_path / "out", device="cpu")
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
