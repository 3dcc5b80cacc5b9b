"""Models small enough that commands over them are quick."""

from __future__ import annotations

import pytest

SHAPE = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    from evenhand.worlds.tokenizer import word_tokenizer

    return word_tokenizer(["red green blue black white", " red green blue black white"])


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizer):
    """A policy in a run directory's layout, and a reward model."""
    from evenhand.models.load import new_policy, reward_model_from, save

    root = tmp_path_factory.mktemp("models")
    save(new_policy(SHAPE, tokenizer, seed=0, device="cpu"), tokenizer, root / "arms" / "dpo" / "seed-0" / "model")
    policy = root / "arms" / "dpo" / "seed-0" / "model"
    save(reward_model_from(policy, seed=0, device="cpu"), tokenizer, root / "rm")
    return root
