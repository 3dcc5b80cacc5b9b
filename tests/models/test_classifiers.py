"""Reward models of architectures that transformers has no classification class for."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from evenhand.errors import UserError
from evenhand.models import classifiers
from evenhand.models.load import load_policy, load_reward_model, reward_model_from, save
from evenhand.models.policy import Policy
from evenhand.types import Head
from tests.models.tiny_architectures import tiny, tiny_config
from tests.models.tiny_networks import a_batch, assert_same_weights


@pytest.mark.filterwarnings("ignore:.*padded rows", "ignore:.*full logits")
@pytest.mark.parametrize("kind", ["granite", "olmoe", "mamba", "gemma4_text", "falcon_h1"])
def test_a_head_over_the_backbone_is_saved_and_loaded_and_readable_elsewhere(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoModel

    save(Policy(tiny(kind)), None, tmp_path / "base")
    with caplog.at_level(logging.WARNING):
        made = reward_model_from(tmp_path / "base", seed=3, device="cpu")
    assert "no class of its own" in caplog.text
    save(made, None, tmp_path / "reward")
    again = load_reward_model(tmp_path / "reward", device="cpu")
    expected = made(a_batch(), {Head.SCORE}).score
    assert_same_weights(again, made)
    assert_close(again(a_batch(), {Head.SCORE}).score, expected)  # see `assert_same_weights`
    assert len(set(expected.tolist())) == len(expected)
    body = AutoModel.from_pretrained(tmp_path / "reward").eval()
    head = load_file(tmp_path / "reward" / "model.safetensors")["score.weight"]
    ids = torch.tensor([[4, 5, 6, 7]])
    with torch.no_grad():
        assert_close((body(input_ids=ids).last_hidden_state[:, -1] @ head[0]), again.hf(input_ids=ids).logits[:, 0])
    assert json.loads((tmp_path / "reward" / "config.json").read_text())["architectures"] == [type(made.hf).__name__]
    with pytest.raises(UserError, match=r"these are the weights of a|lm_head.weight"):
        load_policy(tmp_path / "reward", device="cpu")


def test_padded_rows_are_scored_at_their_last_token() -> None:
    hf = classifiers.auto_for(tiny_config("granite"))(tiny_config("granite", num_labels=1)).eval()
    with torch.no_grad():
        both = hf(input_ids=torch.tensor([[4, 5, 6, 7], [8, 9, 0, 0]]), attention_mask=torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]))
        for row, ids in enumerate(([4, 5, 6, 7], [8, 9])):
            assert_close(both.logits[row], hf(input_ids=torch.tensor([ids])).logits[0], rtol=1e-5, atol=1e-6)


def test_transformers_own_classes_are_used_where_there_are_any() -> None:
    from transformers import AutoModelForSequenceClassification, ViTConfig

    assert classifiers.auto_for(tiny_config("llama")) is AutoModelForSequenceClassification
    assert classifiers.known_to_transformers(tiny_config("llama"))
    assert not classifiers.known_to_transformers(tiny_config("granite"))
    with pytest.raises(UserError, match="no language model of the kind vit"):
        classifiers._classifier(ViTConfig())
