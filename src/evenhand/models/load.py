"""Models in and out of folders: transformers' format, safetensors only, no remote code unless asked for by name."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from evenhand.errors import UserError, did_you_mean
from evenhand.models.heads import RewardModel, ValuePolicy, safe_pad_id, scored
from evenhand.models.policy import Policy
from evenhand.models.trunk import Trunk
from evenhand.seeding import keyed

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def load_policy(
    path_or_name: str | Path, *, dtype: str = "auto", device: str = "auto", trust_remote_code: bool = False
) -> Policy:
    """A causal language model from a folder or a Hub name.

    `dtype` "auto" is bfloat16 on an accelerator and float32 on a processor. Raises UserError when a file is missing, when the
    weights are pickled, or when the folder's code would have to run and `trust_remote_code` was not given.
    """
    from transformers import AutoModelForCausalLM

    device = resolve_device(device)
    hf = _from_pretrained(AutoModelForCausalLM, path_or_name, resolve_dtype(dtype, device), trust_remote_code)
    return Policy(hf.to(device))


def load_reward_model(
    path_or_name: str | Path, *, dtype: str = "auto", device: str = "auto", trust_remote_code: bool = False
) -> RewardModel:
    """A sequence classifier with one label, such as `save` or other tools write."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = _guarded(AutoConfig.from_pretrained, path_or_name, trust_remote_code=trust_remote_code)
    if config.num_labels != 1:
        raise UserError(
            f"the model has {config.num_labels} labels, a reward model has one",
            where=str(path_or_name),
            fix="use a classifier trained with num_labels=1; for a causal language model use reward_model_from",
        )
    device = resolve_device(device)
    hf = _from_pretrained(AutoModelForSequenceClassification, path_or_name, resolve_dtype(dtype, device), trust_remote_code)
    return RewardModel(hf.to(device))


def reward_model_from(path_or_name: str | Path, *, seed: int, dtype: str = "auto", device: str = "auto") -> RewardModel:
    """A reward model on the trunk of a causal language model; its score head starts from `seed` with std 1 / sqrt(H + 1)."""
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    config = _guarded(AutoConfig.from_pretrained, path_or_name)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UserError(
            f"transformers has no {config.model_type} class for sequence classification",
            where=str(path_or_name),
            why="a reward model must load with AutoModelForSequenceClassification",
            fix="train the reward model from another base, for example one of llama, qwen2, gpt_neox",
        )
    device = resolve_device(device)
    hf = _from_pretrained(AutoModelForSequenceClassification, path_or_name, resolve_dtype(dtype, device), False, num_labels=1)
    return scored(hf.to(device), seed)


def new_policy(config: Mapping[str, Any], tokenizer: Any = None, *, seed: int, device: str = "auto") -> Policy:
    """A policy from scratch: `config` is a transformers config with its `model_type`; sizes follow the tokenizer when given.

    Weights are drawn by transformers' own initialisation from `seed`, in float32.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    named = dict(config)
    kind = named.pop("model_type", None)
    if kind not in CONFIG_MAPPING_NAMES:
        raise UserError(f"unknown model_type {kind!r}", where="model", fix=did_you_mean(str(kind), CONFIG_MAPPING_NAMES))
    if tokenizer is not None:
        named = {"vocab_size": len(tokenizer), **_special_ids(tokenizer), **named}
    with torch.random.fork_rng():
        torch.manual_seed(keyed("new policy", seed))
        hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **named), dtype=torch.float32)
    return Policy(hf.to(resolve_device(device)))


def load_tokenizer(path_or_name: str | Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a folder or a Hub name."""
    from transformers import AutoTokenizer

    return _guarded(AutoTokenizer.from_pretrained, path_or_name, trust_remote_code=trust_remote_code)


def save(model: Trunk, tokenizer: Any, folder: str | Path) -> None:
    """Write a model and its tokenizer (None: no tokenizer) in transformers' format, safetensors only.

    The folder appears complete or not at all; one that exists is replaced. A reward model is saved so that
    AutoModelForSequenceClassification, which reads the score at the last token that is not padding, gives the same scores.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        if tokenizer is not None and isinstance(model, RewardModel):
            model.hf.config.get_text_config().pad_token_id = safe_pad_id(tokenizer)
        model.hf.save_pretrained(partial)
        if isinstance(model, ValuePolicy):
            model.save_value_head(partial)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)
        _replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def resolve_device(device: str) -> str:
    """ "auto" is the accelerator when there is one."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolve_dtype(dtype: str, device: str) -> torch.dtype:
    """ "auto" is bfloat16 on an accelerator, float32 on a processor."""
    if dtype == "auto":
        return torch.float32 if device == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}", where="dtype", fix=did_you_mean(dtype, ["auto", *DTYPES]))
    return DTYPES[dtype]


def _replace(partial: Path, folder: Path) -> None:
    """Move a finished folder into place; a folder cannot be renamed over one that has files."""
    os.chmod(partial, 0o755)
    if not folder.exists():
        os.rename(partial, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent)) / "old"
    os.rename(folder, old)
    os.rename(partial, folder)
    shutil.rmtree(old.parent)


def _special_ids(tokenizer: Any) -> dict[str, int | None]:
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _from_pretrained(auto: Any, path: str | Path, dtype: torch.dtype, trust_remote_code: bool, **named: Any) -> Any:
    _refuse_pickles(Path(path))
    return _guarded(auto.from_pretrained, path, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code, **named)


def _refuse_pickles(path: Path) -> None:
    if path.is_dir() and not any(path.glob("*.safetensors")):
        pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in path.glob(pattern))
        if pickled:
            raise UserError(
                f"the weights are pickled ({pickled[0]})",
                where=str(path),
                why="unpickling runs code from the file",
                fix="convert them to safetensors where they come from",
            )
        raise UserError("no *.safetensors file", where=str(path), fix="point to a folder written by save_pretrained")


def _guarded(load: Any, path: str | Path, **named: Any) -> Any:
    """Call transformers, turning its long errors about files into one that names what is missing."""
    local = Path(path)
    looks_local = local.exists() or str(path).startswith((".", "/", "~")) or str(path).count("/") > 1
    if looks_local and not local.is_dir():
        raise UserError("no such folder", where=str(path), fix="give a model folder or a name on the Hub")
    if looks_local and not any((local / name).exists() for name in ("config.json", "tokenizer_config.json", "tokenizer.json")):
        raise UserError("no config.json", where=str(path), fix="point to a folder written by save_pretrained")
    try:
        return load(str(path), **named)
    except (OSError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines()
        raise UserError(
            lines[0] if lines else type(error).__name__,
            where=str(path),
            why="transformers could not load it",
            fix="check the name, the folder's files and, for a Hub name, the connection",
        ) from error
