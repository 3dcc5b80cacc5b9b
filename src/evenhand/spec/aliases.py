"""Other names of keys: what other tools call one is answered with ours, and a former name is still read, with one line."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from evenhand.configfile.document import COMMAND_LINE, Document, KeyPath, key_text
from evenhand.configfile.validation_errors import Faults
from evenhand.errors import UserError

ALIASES: Mapping[str, str] = {
    "lr": "train.learning_rate", "learning_rate": "train.learning_rate", "actor_learning_rate": "train.learning_rate",
    "num_train_epochs": "train.epochs", "num_epochs": "train.epochs", "max_epochs": "train.epochs",
    "max_steps": "train.steps", "num_steps": "train.steps", "total_steps": "train.steps", "max_iterations": "train.steps",
    "per_device_train_batch_size": "train.prompts_per_step", "train_batch_size": "train.prompts_per_step",
    "batch_size": "train.prompts_per_step", "global_batch_size": "train.prompts_per_step",
    "micro_train_batch_size": "train.tokens_per_microbatch", "micro_batch_size": "train.tokens_per_microbatch",
    "gradient_accumulation_steps": "train.tokens_per_microbatch", "accumulate_grad_batches": "train.tokens_per_microbatch",
    "warmup_ratio": "train.warmup", "warmup_steps": "train.warmup", "lr_warmup_ratio": "train.warmup",
    "lr_scheduler_type": "train.schedule", "lr_scheduler": "train.schedule", "scheduler": "train.schedule",
    "max_grad_norm": "train.clip", "grad_clip": "train.clip", "gradient_clip_val": "train.clip", "max_norm": "train.clip",
    "adam_beta1": "train.betas", "adam_beta2": "train.betas", "adam_betas": "train.betas", "adam_epsilon": "train.eps",
    "optim": "train.optimizer", "save_steps": "train.checkpoint_every", "eval_steps": "train.evaluate_every",
    "load_best_model_at_end": "train.keep_checkpoint",
    "lora_r": "train.adapter.rank", "lora_rank": "train.adapter.rank", "lora_alpha": "train.adapter.alpha",
    "lora_target_modules": "train.adapter.targets", "target_modules": "train.adapter.targets", "use_peft": "train.adapter",
    "load_in_4bit": "train.adapter.quantize", "bnb_4bit_quant_type": "train.adapter.quantize",
    "lora_dropout": "train.adapter.dropout", "use_rslora": "train.adapter.rslora", "use_dora": "train.adapter.form",
    "peft_config": "train.adapter",
    "num_generations": "arms.NAME.completions_per_prompt", "n_samples_per_prompt": "arms.NAME.completions_per_prompt",
    "rloo_k": "arms.NAME.completions_per_prompt", "num_samples": "arms.NAME.completions_per_prompt", "group_size":
    "arms.NAME.completions_per_prompt", "num_iterations": "arms.NAME.updates", "num_ppo_epochs": "arms.NAME.epochs",
    "ppo_epochs": "arms.NAME.epochs", "kl_coef": "arms.NAME.kl", "init_kl_coef": "arms.NAME.kl", "kl_beta": "arms.NAME.kl",
    "cliprange": "arms.NAME.clip", "clip_eps": "arms.NAME.clip", "eps_clip": "arms.NAME.clip", "epsilon": "arms.NAME.low",
    "epsilon_high": "arms.NAME.high", "vf_coef": "arms.NAME.value", "loss_type": "arms.NAME.method",
    "label_smoothing": "arms.NAME.flip", "simpo_gamma": "arms.NAME.margin", "desirable_weight": "arms.NAME.weight_desirable",
    "undesirable_weight": "arms.NAME.weight_undesirable", "entropy_coef": "arms.NAME.entropy",
    "rpo_alpha": "arms.NAME.likelihood",
    "reward_funcs": "arms.NAME.reward", "reward_model_path": "reward_models.NAME.path", "reward_model": "reward_models",
    "max_prompt_length": "lengths.prompt", "prompt_max_len": "lengths.prompt", "max_prompt_len": "lengths.prompt",
    "max_completion_length": "lengths.completion", "max_new_tokens": "lengths.completion", "response_length":
    "lengths.completion", "generate_max_len": "lengths.completion", "max_response_length": "lengths.completion",
    "max_length": "lengths.completion", "max_seq_length": "lengths.completion", "max_tokens": "lengths.completion",
    "model_name_or_path": "model.path", "model_name": "model.path", "pretrain": "model.path", "torch_dtype": "model.dtype",
    "bf16": "model.matmul", "fp16": "model.dtype", "chat_template": "model.template", "tokenizer_chat_template": "model.template",
    "dataset_name": "data.preferences", "train_dataset": "data.preferences", "prompt_data": "data.prompts",
    "eval_dataset": "data.heldout_preferences", "test_size": "data.holdout", "seed": "seeds", "use_vllm": "engine",
    "report_to": "tracker", "output_dir": "--out", "num_gpus": "runtime.workers", "ref_model": "initial_policy",
}  # fmt: skip
"""Key of TRL, OpenRLHF, verl or another trainer -> our key, with NAME for what the user calls."""
NOTES: Mapping[str, str] = {
    "beta": "for methods that sample it is the weight of the KL, `kl`",
    "gradient_accumulation_steps": "a step holds `train.prompts_per_step` prompts whatever fits at once",
    "per_device_train_batch_size": "it counts the prompts of a whole optimizer step, accumulation and devices included",
    "optim": "`adamw` or `adamw_8bit`",
    "warmup_steps": "it is a share of the steps, not a number",
    "max_length": "prompts have a limit of their own, `lengths.prompt`",
    "bf16": "`dtype: float32, matmul: bfloat16`", "fp16": "`dtype: float16`",
    "loss_type": "each loss is a method: `evenhand keys arms` lists them",
    "output_dir": "an option of the command: evenhand run FILE --out DIR",
    "seed": "a list: every arm is trained once per seed",
}  # fmt: skip
_UNKNOWN = re.compile(r"unknown key '(.+?)'")


def answered(error: UserError) -> UserError:
    """The same error, its way out our name for a key that is known elsewhere."""
    return Faults.of([_answered(fault) for fault in error.faults]) if isinstance(error, Faults) else _answered(error)


def _answered(fault: UserError) -> UserError:
    found = _UNKNOWN.match(fault.what)
    if found is None or (hint := ours(found[1], fault.where)) is None:
        return fault
    return UserError(fault.what, where=fault.where, why=fault.why, fix=hint)


def ours(key: str, where: str = "") -> str | None:
    """What to write in place of another tool's key; None for a key that no tool is known by, or that stands where it belongs."""
    note = NOTES.get(key)
    if key == "beta":
        return f"the method has no `beta`; {note}"
    if key not in ALIASES:
        return None
    place, _, name = ALIASES[key].rpartition(".")
    at = f" under `{place}`" if place else ""
    here = f"write `{name}`{at}" if name != key else f"`{name}` belongs{at}"
    return f"{here} ({note})" if note else here


FORMER: Mapping[tuple[str, ...], str] = {
    ("start",): "initial_policy",
    ("arms", "*", "start"): "initial_policy",
    ("reward_models", "*", "start"): "initial_policy",
    ("train", "keep"): "keep_checkpoint",
    ("arms", "*", "train", "keep"): "keep_checkpoint",
    ("sft", "train", "keep"): "keep_checkpoint",
    ("model", "pretrain", "train", "keep"): "keep_checkpoint",
    ("reward_models", "*", "train", "keep"): "keep_checkpoint",
}
"""Where a key stood (`*` is any name) -> its name of today, at the same place."""
_TOLD = "%s is now called '%s'; the old name goes with the next release"
_log = logging.getLogger(__name__)


def renamed(document: Document) -> Document:
    """A file with today's keys. Raises: UserError where a former key stands beside its successor in it.

    Each file by itself, before one is merged over another: a key of the later one wins whatever the earlier one calls it.
    """
    places = {tuple(_name(path[: n + 1]) or key for n, key in enumerate(path)): at for path, at in document.places.items()}
    return Document(_renamed(document.data, (), document), places, document.prefix)


def todays(path: KeyPath) -> KeyPath:
    """The key path of an override, with today's name of its last key.

    >>> todays(("arms", "dpo", "train", "keep"))
    ('arms', 'dpo', 'train', 'keep_checkpoint')
    """
    if (name := _name(path)) is None:
        return path
    _log.warning(_TOLD, f"{COMMAND_LINE}: {key_text(path)}", key_text(new := (*path[:-1], name)))
    return new


def _name(path: KeyPath) -> str | None:
    """Today's name of the last key; None where it is no former one."""
    for pattern, name in FORMER.items():
        if len(pattern) == len(path) and all(part in ("*", key) for part, key in zip(pattern, path, strict=True)):
            return name
    return None


def _renamed(data: Any, path: KeyPath, document: Document) -> Any:
    """The data at `path` with today's keys, in their places among the others."""
    if not isinstance(data, Mapping):
        return data
    found = {}
    for key, value in data.items():
        old = (*path, key)
        if (name := _name(old)) is not None:
            new = (*path, name)
            if name in data:
                raise UserError(
                    f"`{key}` and `{name}` are one key, and both are given", where=document.where(old),
                    why=f"the other stands at {document.where(new)}", fix=f"remove `{key}`, which is the former name",
                )  # fmt: skip
            _log.warning(_TOLD, document.where(old), key_text(new))
        found[name or key] = _renamed(value, old, document)
    return found
