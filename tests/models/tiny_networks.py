"""Networks small enough to compare in milliseconds, groups of odd shapes, and the plain computation to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from packaging.version import Version
from torch import Tensor, nn

from evenhand.data.batch import pack
from evenhand.types import Batch, Completion, Group, Prompt, TokenGroup, Tokens

FIRST = Version(transformers.__version__) < Version("5.11")
"""Whether this is the oldest transformers that is supported, some of whose models differ."""
VOCABULARY = 97
SHAPES = ((9, (5, 2, 3)), (7, (4,)), (8, (6, 6)), (1, (1, 4, 2, 7)), (12, (3,)))
"""(prompt length, completion lengths): k from 1 to 4, neighbours of equal and of different length."""

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SPECIAL: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 16},
    "glm4": {"head_dim": 8},
    "granite": {"logits_scaling": 4.0, "attention_multiplier": 0.3, "residual_multiplier": 0.5, "embedding_multiplier": 3.0},
    "cohere2": {"logit_scale": 0.25},
    "qwen3_moe": {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt_oss": {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2+window": {"use_sliding_window": True, "max_window_layers": 1},
}


def network(kind: str, **more: Any) -> Any:
    """A random causal language model of an architecture, every weight (norms and biases too) moved off its initial value."""
    from transformers import AutoConfig, AutoModelForCausalLM

    windowed = SPECIAL.get(f"{kind}+window", {}) if "sliding_window" in more else {}
    config = AutoConfig.for_model(kind, **{**COMMON, **SPECIAL.get(kind, {}), **windowed, **more})
    torch.manual_seed(0)
    return shaken(AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval())


def shaken(hf: nn.Module, amount: float = 0.05) -> Any:
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=amount)
    return hf


def token_groups(
    shapes: Sequence[tuple[int, Sequence[int]]] = SHAPES, *, seed: int = 0, vocabulary: int = VOCABULARY
) -> list[TokenGroup]:
    draw = np.random.default_rng(seed)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(int(i) for i in draw.integers(3, vocabulary, n))

    def group(prompt: int, completions: Sequence[int]) -> TokenGroup:
        record = Group(prompt=Prompt(content="x"), completions=tuple(Completion(content="y") for _ in completions))
        tokens = tuple(Tokens(ids=ids(n), mask=(True,) * n) for n in completions)
        return TokenGroup(prompt=ids(prompt), completions=tokens, group=record)

    return [group(p, c) for p, c in shapes]


def a_batch(**named: Any) -> Batch:
    return pack(token_groups(**named))


def plain_logp(hf: Any, groups: Sequence[TokenGroup], temperature: float = 1.0) -> list[Tensor]:
    """Log-probs of every completion by transformers alone: one unpadded row at a time, full logits."""
    out = []
    for group in groups:
        for tokens in group.completions:
            row = torch.tensor([group.prompt + tokens.ids])
            table = (hf(input_ids=row).logits[0] / temperature).log_softmax(-1)
            n = len(group.prompt)
            out.append(torch.stack([table[n - 1 + t, token] for t, token in enumerate(tokens.ids)]))
    return out


def weighted(logps: Sequence[Tensor]) -> Tensor:
    """A scalar in which every log-prob has its own weight, so that no two tokens could trade places."""
    return sum((x * torch.linspace(0.3 + i, 1.7, len(x))).sum() for i, x in enumerate(logps))


def rows_of(table: Tensor, groups: Sequence[TokenGroup]) -> list[Tensor]:
    """[N, C] -> one tensor per completion, without its padding."""
    lengths = [len(tokens.ids) for group in groups for tokens in group.completions]
    return [table[i, :n] for i, n in enumerate(lengths)]


def gradients(hf: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    hf.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in hf.named_parameters() if p.grad is not None}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 2e-5) -> None:
    """Equal up to rounding, measured against the largest gradient anywhere (some are exactly zero in theory)."""
    largest = max(float(g.abs().max()) for g in expected.values())
    assert largest > 0
    for name, gradient in expected.items():
        other = found.get(name, torch.zeros_like(gradient))
        difference = float((other - gradient).abs().max())
        assert difference <= tolerance * largest, f"{name}: {difference:.2e} of {largest:.2e}"
    assert not [name for name in found if name not in expected and found[name].abs().max() > tolerance * largest]


def character_tokenizer() -> Any:
    """One token per letter; <unk>, <s>, </s>, <pad> come first. No padding token is set."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", "<pad>", *map(chr, range(97, 123))])}
    inner = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def assert_same_weights(found: torch.nn.Module, known: torch.nn.Module) -> None:
    """Every weight and buffer equal to the bit.

    What the two networks say is then equal up to rounding only: weights mapped from a file lie otherwise in memory, and the last
    digit of a product depends on where its rows begin.
    """
    one, other = found.state_dict(), known.state_dict()
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
