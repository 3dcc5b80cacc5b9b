"""Adapters made by peft alone, merged here: the merged model is the live one, and what cannot be that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch.testing import assert_close

from evenhand.errors import UserError
from evenhand.models import adapter_files
from evenhand.models.load import load_policy, save
from evenhand.models.policy import Policy
from tests.models.test_adapter_files import from_transformers
from tests.models.tiny_networks import network

INNER = ["q_proj", "v_proj"]
CASES: dict[str, dict[str, Any]] = {
    "head": {"target_modules": ["lm_head", "q_proj"]},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "both ends": {"target_modules": ["embed_tokens", "lm_head"]},
    "head, kept tied": {"target_modules": ["lm_head", "q_proj"], "ensure_weight_tying": True},
    "embeddings, kept tied": {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
    "embeddings whole": {"target_modules": INNER, "modules_to_save": ["embed_tokens"]},
    "head whole": {"target_modules": INNER, "modules_to_save": ["lm_head"]},
    "one end whole, the other by rank": {"target_modules": ["lm_head", "q_proj"], "modules_to_save": ["embed_tokens"]},
    "rslora": {"target_modules": INNER, "use_rslora": True},
    "dora on the head": {"target_modules": [*INNER, "lm_head"], "use_dora": True},
    "dora on the embeddings": {"target_modules": [*INNER, "embed_tokens"], "use_dora": True},
    "patterns": {
        "target_modules": INNER, "rank_pattern": {"layers.0.self_attn.q_proj": 4},
        "alpha_pattern": {"layers.1.self_attn.v_proj": 32},
    },
    "a few tokens": {"target_modules": INNER, "trainable_token_indices": [3, 5, 9]},
    "a few tokens at both ends": {
        "target_modules": INNER, "trainable_token_indices": {"embed_tokens": [3, 5, 9], "lm_head": [3, 5]},
    },
    "biases": {"target_modules": INNER, "bias": "all"},
}  # fmt: skip
IDS = torch.tensor([[5, 3, 9, 11, 40, 2, 3]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def made(folder: Path, *, kind: str = "llama", tied: bool = True, amount: float = 0.1, **config: Any) -> torch.Tensor:
    """An adapter far from zero on a start, both in `folder`; the live model's logits."""
    save(Policy(network(kind, tie_word_embeddings=tied)), None, folder / "start")
    base = from_transformers(folder / "start")
    torch.manual_seed(1)
    live = peft.get_peft_model(base, peft.LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM", **config)).eval()
    with torch.no_grad():
        for parameter in live.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape), alpha=amount)
    live.save_pretrained(folder / "adapter")
    return logits(live)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "tied"), [("llama", False), ("llama", True), ("gemma2", True)])
@pytest.mark.parametrize("case", CASES)
def test_the_merged_model_is_the_live_one(case: str, kind: str, tied: bool, tmp_path: Path) -> None:
    expected = made(tmp_path, kind=kind, tied=tied, **CASES[case])
    loaded = load_policy(tmp_path / "adapter", device="cpu")
    assert_close(logits(loaded.hf), expected, rtol=1e-4, atol=1e-4)
    save(loaded, None, tmp_path / "again")
    assert_close(logits(load_policy(tmp_path / "again", device="cpu").hf), expected, rtol=1e-4, atol=1e-4)


def test_embeddings_that_are_merged_alike_stay_one_weight(tmp_path: Path) -> None:
    made(tmp_path, target_modules=INNER)
    hf = load_policy(tmp_path / "adapter", device="cpu").hf
    assert hf.get_output_embeddings().weight is hf.get_input_embeddings().weight


@pytest.mark.filterwarnings("ignore")
def test_a_merge_that_gives_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, **CASES["head"])
    monkeypatch.setattr(adapter_files, "_take_apart", lambda wrapped: None)
    with pytest.raises(UserError, match="merging the adapter gives another model"):
        load_policy(tmp_path / "adapter", device="cpu")


def test_an_adapter_that_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    made(tmp_path, target_modules=INNER, lora_bias=True)
    with pytest.raises(UserError, match="cannot be merged"):
        load_policy(tmp_path / "adapter", device="cpu")


def test_weights_that_overflow_when_rounded_are_refused(tmp_path: Path) -> None:
    made(tmp_path, target_modules=["o_proj"], amount=600.0)
    load_policy(tmp_path / "adapter", device="cpu")
    with pytest.raises(UserError, match="rounding to float16 gives another model"):
        load_policy(tmp_path / "adapter", device="cpu", dtype="float16")
