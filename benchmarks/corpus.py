"""Synthetic text whose tokens both sides agree on, and the models as folders that both sides load.

The vocabulary is one word per token id, so text and ids determine each other: TRL gets strings and tokenises them itself, and the
ids it trains on are exactly ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shapes import Model, Training

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SPECIAL = 3


def tokenizer(vocab: int) -> Any:
    """Ids 0, 1, 2 are padding, end and unknown; id i is the word `w{i}`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {PAD: 0, END: 1, UNKNOWN: 2} | {f"w{i}": i for i in range(SPECIAL, vocab)}
    model = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=model, pad_token=PAD, eos_token=END, unk_token=UNKNOWN)


def prompts(vocab: int, count: int, length: int, seed: int = 0) -> list[str]:
    """`count` random prompts of `length` tokens."""
    draw = np.random.default_rng([seed, 1])
    return [_text(draw, vocab, length) for _ in range(count)]


def answers(case: Training, per_prompt: int, seed: int = 0) -> list[list[str]]:
    """Answers around the case's length in tokens, the end token included (which is not written)."""
    draw = np.random.default_rng([seed, 2])
    low, high = (round(share * case.completion) for share in (1 - case.spread, 1 + case.spread))
    return [
        [" " + _text(draw, case.model.vocab, int(draw.integers(low, high + 1)) - 1) for _ in range(per_prompt)]
        for _ in range(case.rows)
    ]


def _text(draw: np.random.Generator, vocab: int, length: int) -> str:
    return " ".join(f"w{i}" for i in draw.integers(SPECIAL, vocab, length))


def rows(case: Training) -> list[dict[str, str]]:
    """The step's rows in the column names that both sides read: prompt, and completion or chosen and rejected."""
    texts = prompts(case.model.vocab, case.rows, case.prompt)
    names = {"sft": ("completion",), "grpo": ()}.get(case.kind, ("chosen", "rejected"))
    written = answers(case, len(names))
    return [{"prompt": p} | dict(zip(names, w, strict=True)) for p, w in zip(texts, written, strict=True)]


def lengths(case: Training) -> list[list[int]]:
    """Completion lengths in tokens, per prompt."""
    if case.kind == "grpo":
        return [[case.completion] * case.group for _ in range(case.rows)]
    return [[len(text.split()) + 1 for name, text in row.items() if name != "prompt"] for row in rows(case)]


def save_models(model: Model, folder: Path, *, kinds: Sequence[str] = ("policy", "reward"), device: str = "cpu") -> Path:
    """Random weights as folders in transformers' format, `policy` and `reward`; drawn on an accelerator they are bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Qwen2Config

    autos: dict[str, Any] = {"policy": AutoModelForCausalLM, "reward": AutoModelForSequenceClassification}
    for name in kinds:
        torch.manual_seed(0)
        config = Qwen2Config(**model.config, **({"num_labels": 1} if name == "reward" else {}))
        with torch.device(device):
            network = autos[name].from_config(config, dtype=torch.float32 if device == "cpu" else torch.bfloat16)
        network.save_pretrained(folder / name)
    return folder
