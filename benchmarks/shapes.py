"""What is measured: model shapes, training steps, sampling shapes; and the least arithmetic each one needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

HEAD_PRODUCTS = {"sft": 3, "dpo": 3, "grpo": 3, "reward": 0}
"""Matrix products over the vocabulary per completion token in one training step: forward, and two backward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A Qwen2 architecture; tied embeddings, random weights."""

    name: str
    layers: int = 6
    width: int = 256
    heads: int = 4
    kv_heads: int = 2
    inner: int = 768
    vocab: int = 32_000
    label: str = ""
    """Before the titles of its steps, where a table has several models."""

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments of `Qwen2Config`; token ids 0 and 1 are padding and end, see corpus.py."""
        return {
            "num_hidden_layers": self.layers, "hidden_size": self.width, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "intermediate_size": self.inner, "vocab_size": self.vocab,
            "max_position_embeddings": 4096, "tie_word_embeddings": True,
            "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
        }  # fmt: skip

    @property
    def body(self) -> int:
        """Parameters that multiply every token: the layers without embeddings.

        >>> round((SMALL.body + SMALL.vocab * SMALL.width) / 1e6, 1)
        12.9
        """
        size = self.width // self.heads
        attention = self.width * size * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.inner)

    @property
    def state(self) -> int:
        """Bytes that training holds whatever it does: fp32 weights, gradients and AdamW's two moments; embeddings are tied.

        >>> round(SMALL.state / 2**30, 2)
        0.19
        """
        size = self.width // self.heads
        small = 2 * self.width + size * (self.heads + 2 * self.kv_heads)  # two norms; biases of queries, keys and values
        return 16 * (self.body + self.layers * small + self.width + self.vocab * self.width)

    def forward_flops(self, tokens: float, pairs: float, scored: float) -> float:
        """Forward pass: 2 per parameter and token, 4 * width per layer and attended (query, key) pair, the head where scored."""
        return 2.0 * self.body * tokens + 4.0 * self.layers * self.width * pairs + 2.0 * self.width * self.vocab * scored


SMALL = Model(name="12.9M (6 layers, width 256, vocabulary 32,000)")
SMALLEST = Model(name="5.2M (6 layers, width 256, vocabulary 2,000)", vocab=2_000)
HALF_B = Model(
    name="0.5B (the shape of Qwen2.5-0.5B)", label="0.5B", layers=24, width=896, heads=14, kv_heads=2, inner=4864, vocab=151_936
)
QWEN_1_5B = Model(
    name="1.5B (the shape of Qwen2.5-1.5B)", label="1.5B", layers=28, width=1536, heads=12, kv_heads=2, inner=8960, vocab=151_936
)
TOY = Model(name="toy", layers=2, width=64, heads=2, kv_heads=1, inner=128, vocab=500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One optimizer step. `kind` is sft, dpo, reward or grpo; `rows` prompts with `prompt` tokens each, completions of about
    `completion` tokens (exactly so many for grpo, which samples `group` of them per prompt).

    `target` is the ratio aimed at; `tokens` is our `tokens_per_microbatch`, which changes memory and hardly time.
    """

    name: str
    kind: str
    model: Model
    rows: int
    prompt: int
    completion: int
    group: int = 1
    target: float = 1.0
    tokens: int = 2048
    spread: float = 0.4
    """Completions of fixed data are up to so much shorter or longer, as a share."""

    @property
    def title(self) -> str:
        what = {"sft": "SFT", "dpo": "DPO", "reward": "reward model", "grpo": "GRPO"}[self.kind]
        unit = "rows" if self.kind == "sft" else "prompts" if self.kind == "grpo" else "pairs"
        unit = unit if self.rows > 1 else unit.removesuffix("s")
        many = f" x {self.group} sampled" if self.kind == "grpo" else ""
        about = "" if self.kind == "grpo" else "~"
        name = f"{self.model.label} {what}".lstrip()
        return f"{name}: {self.rows} {unit}{many}, prompt {self.prompt}, completion {about}{self.completion}"

    def flops(self, lengths: list[list[int]]) -> float:
        """The least a step needs, given the completion lengths of each prompt: every prompt once, no padding, the vocabulary at
        completions only; three times a forward pass. GRPO adds sampling: prompts once, then one forward per new token."""
        model, tokens, pairs, scored = self.model, 0.0, 0.0, 0.0
        for completions in lengths:
            tokens += self.prompt + sum(completions)
            pairs += self.prompt * (self.prompt + 1) / 2 + sum(c * self.prompt + c * (c + 1) / 2 for c in completions)
            scored += sum(completions)
        head = model.width * model.vocab * 2.0 * HEAD_PRODUCTS[self.kind] * scored
        training = 3 * model.forward_flops(tokens, pairs, 0) + head
        return training + (model.forward_flops(tokens, pairs, scored) if self.kind == "grpo" else 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """`rows` completions of exactly `new` tokens; `group` of them share a prompt of `prompt` tokens."""

    rows: int
    prompt: int
    new: int
    group: int = 1

    @property
    def name(self) -> str:
        return f"{self.rows}x{self.prompt}+{self.new}g{self.group}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Everything one run measures. `repeats` timed rounds at most, as many as fit into `seconds` per row (one at least).
    Rows that would begin after `minutes` are left out."""

    training: tuple[Training, ...]
    sampling: tuple[Sampling, ...]
    sampler: Model
    repeats: int = 5
    warmups: int = 1
    seconds: float = 36.0
    sampling_seconds: float = 10.0
    minutes: float = 11.0


CPU = Suite(
    training=(
        Training(name="dpo-long-prompt", kind="dpo", model=SMALL, rows=4, prompt=300, completion=50, target=5.0),
        Training(name="dpo-long-answer", kind="dpo", model=SMALL, rows=4, prompt=160, completion=250, target=3.0),
        Training(name="sft", kind="sft", model=SMALL, rows=8, prompt=100, completion=200, target=4.0),
        Training(name="reward", kind="reward", model=SMALL, rows=4, prompt=300, completion=50, target=1.7),
        Training(name="grpo", kind="grpo", model=SMALLEST, rows=8, prompt=128, completion=64, group=8, target=3.0, tokens=1024),
    ),
    sampling=(
        Sampling(rows=1, prompt=32, new=64),
        Sampling(rows=1, prompt=128, new=128),
        Sampling(rows=8, prompt=32, new=64),
        Sampling(rows=8, prompt=128, new=128),
        Sampling(rows=32, prompt=32, new=64),
        Sampling(rows=32, prompt=128, new=128),
        Sampling(rows=128, prompt=32, new=64),
        Sampling(rows=128, prompt=128, new=128),
        Sampling(rows=128, prompt=128, new=128, group=8),
        Sampling(rows=512, prompt=32, new=64),
        Sampling(rows=512, prompt=128, new=64),
        Sampling(rows=512, prompt=128, new=64, group=8),
    ),
    sampler=SMALLEST,
)


def _on_gpu(model: Model, *names: str) -> tuple[Training, ...]:
    """Steps of a model on a GPU."""
    made = (
        Training(name="dpo-long-prompt", kind="dpo", model=model, rows=8, prompt=600, completion=100),
        Training(name="dpo-long-answer", kind="dpo", model=model, rows=8, prompt=160, completion=400),
        Training(name="sft", kind="sft", model=model, rows=16, prompt=100, completion=300),
        Training(name="reward", kind="reward", model=model, rows=8, prompt=600, completion=100),
        Training(name="grpo", kind="grpo", model=model, rows=8, prompt=256, completion=128, group=8),
    )
    return tuple(replace(t, target=1.5, tokens=16_384) for t in made if t.name in names)


GPU = Suite(
    training=(  # what is wanted most comes first: rows that would begin too late are left out
        *_on_gpu(QWEN_1_5B, "dpo-long-prompt"),
        *_on_gpu(HALF_B, "dpo-long-prompt", "sft", "reward", "grpo"),
        *_on_gpu(QWEN_1_5B, "sft", "reward", "grpo"),
        *_on_gpu(HALF_B, "dpo-long-answer"),
    ),
    sampling=(
        Sampling(rows=1, prompt=128, new=128),
        Sampling(rows=128, prompt=128, new=128),
        Sampling(rows=512, prompt=128, new=128, group=8),
        Sampling(rows=512, prompt=128, new=128),
        Sampling(rows=32, prompt=128, new=128),
        Sampling(rows=8, prompt=128, new=128),
    ),
    sampler=HALF_B,
    repeats=9,
    warmups=2,
    seconds=8.0,
    sampling_seconds=4.0,
)


def quick(suite: Suite) -> Suite:
    """The same rows, small enough to prove in a minute that everything runs. Its figures mean nothing."""
    training = tuple(
        replace(t, model=TOY, rows=2, prompt=t.prompt // 10, completion=t.completion // 10, group=min(t.group, 2))
        for t in suite.training
    )
    return replace(
        suite,
        training=training,
        sampling=(Sampling(rows=2, prompt=8, new=8), Sampling(rows=4, prompt=8, new=8, group=2)),
        sampler=TOY,
        repeats=2,
        seconds=1.0,
        sampling_seconds=1.0,
    )
