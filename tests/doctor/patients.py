"""A healthy experiment, small enough to look at in moments, and the ways in which it is made ill."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evenhand.doctor import Diagnosis, Severity, examine
from evenhand.run_experiment import prepare

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "kelp", "lotus", "maple",
         "north", "ocean", "pearl", "quartz", "river", "stone", "tide"]  # fmt: skip
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def byte_tokenizer(template: str | None = TEMPLATE, *, special: list[str] | None = None, **changes: Any) -> Any:
    """One token per byte, and special tokens for turns: every text survives it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = SPECIAL if special is None else special
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate([*special, *alphabet])}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", **changes}
    extra = [t for t in special if t.startswith("<|")]
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, extra_special_tokens=extra, **{k: v for k, v in named.items() if v is not None}
    )
    made.chat_template = template
    return made


def sentence(generator: random.Random, words: int) -> str:
    return " ".join(generator.choice(WORDS) for _ in range(words))


def pairs(n: int = 80, seed: int = 0) -> list[dict[str, Any]]:
    """Preference pairs as messages, without a fault: distinct prompts, answers of like length, the sign of no habit."""
    generator = random.Random(seed)
    rows = []
    for i in range(n):
        size = generator.randint(4, 8)
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"Tell me about {sentence(generator, 5)} number {i}."}],
                "chosen": [{"role": "assistant", "content": f"good {sentence(generator, size)}"}],
                "rejected": [{"role": "assistant", "content": f"poor {sentence(generator, size)}"}],
            }
        )
    return rows


def demonstrations(n: int = 80) -> list[dict[str, Any]]:
    return [{"messages": [*row["prompt"], *row["chosen"]]} for row in pairs(n, seed=1)]


@dataclass
class Ward:
    """Everything an experiment is made of, still to be written; a case changes what it likes."""

    folder: Path
    rows: list[Any] = field(default_factory=pairs)
    tokenizer: Any = field(default_factory=byte_tokenizer)
    shape: dict[str, Any] = field(
        default_factory=lambda: {
            "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "max_position_embeddings": 1024,
        }
    )  # fmt: skip
    experiment: dict[str, Any] = field(default_factory=dict)
    after: list[Callable[[Path], None]] = field(default_factory=list)
    """What is done to the model's folder once it is written."""
    text: str | None = None
    """The data file's own text, where rows would be too well-formed."""

    def __post_init__(self) -> None:
        self.experiment = {
            "name": "ward",
            "seeds": [0, 1, 2],
            "initial_policy": "base",
            "model": {"path": str(self.folder / "model")},
            "data": {"preferences": str(self.folder / "pairs.jsonl"), "holdout": 0.5},
            "lengths": {"prompt": 128, "completion": 128},
            "rewards": {"fair": {"kind": "function", "path": f"{self.folder / 'rewards.py'}:fair"}},
            "train": {"steps": 2, "prompts_per_step": 4},
            "arms": {
                "base": {"method": "start"},
                "dpo": {"method": "dpo"},
                "grpo": {"method": "grpo", "reward": "fair", "completions_per_prompt": 4},
            },
            "judge": {"reward": "fair"},
            "evaluation": {"prompts": 30},
        }

    def classifier(self, tokenizer: Any, *, seed: int = 1, **shape: Any) -> Path:
        """A reward model of this tokenizer's, in a folder of its own, as other tools leave one."""
        from evenhand.models.load import new_policy, reward_model_from, save

        trunk, folder = self.folder / "trunk", self.folder / "rm"
        save(new_policy({**self.shape, **shape}, tokenizer, seed=0, device="cpu"), tokenizer, trunk)
        save(reward_model_from(trunk, seed=seed, device="cpu"), tokenizer, folder)
        self.experiment["reward_models"] = {"rm": {"path": str(folder)}}
        self.experiment["arms"]["grpo"]["reward"] = "rm"
        return folder

    def write(self) -> Path:
        from evenhand.models.load import new_policy, save

        save(new_policy(self.shape, self.tokenizer, seed=0, device="cpu"), self.tokenizer, self.folder / "model")
        for change in self.after:
            change(self.folder / "model")
        text = self.text if self.text is not None else "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in self.rows)
        (self.folder / "pairs.jsonl").write_text(text, encoding="utf-8")
        (self.folder / "rewards.py").write_text(REWARDS)
        path = self.folder / "ward.yaml"
        path.write_text(yaml.safe_dump(self.experiment))
        return path

    def examine(self, *, quick: bool = True, only: Iterable[str] = ()) -> Diagnosis:
        return examine(prepare(str(self.write()), [], self.folder / "out"), quick=quick, only=only)


REWARDS = '''
def fair(prompt, completion):
    """1 for the word that good answers have, less for the word of poor ones; nothing for an empty answer."""
    return float(completion.text.startswith("good")) - float(completion.text.startswith("poor"))

def flipped(prompt, completion):
    return -fair(prompt, completion)

def constant(prompt, completion):
    return 0.25

def unscored(prompt, completion):
    return float("nan")

def infinite(prompt, completion):
    return float("inf")

def broken(prompt, completion):
    raise KeyError("answer")

def wordy(prompt, completion):
    return 0.01 * len(completion.text)

def flattered(prompt, completion):
    return fair(prompt, completion) + 5.0 * completion.text.lower().count("thank")

def excited(prompt, completion):
    return fair(prompt, completion) + 5.0 * completion.text.count("\\U0001F600")

def silent(prompt, completion):
    return -float(len(completion.text) > 0)
'''


def plain(diagnosis: Diagnosis, severities: tuple[Severity, ...] = (Severity.FAIL,)) -> list[str]:
    """One line per finding."""
    return [f"{r.check.id} {f.severity}: {f.seen}" for r in diagnosis.results for f in r.findings if f.severity in severities]
