"""A configuration of TRL's trainers as settings of an experiment, and what has no place there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.spec.aliases import ours

SILENT = frozenset({
    "output_dir", "logging_steps", "logging_dir", "logging_strategy", "run_name", "push_to_hub", "hub_model_id",
    "save_strategy", "save_steps", "save_total_limit", "eval_strategy", "eval_steps", "do_eval", "do_train",
    "dataset_num_proc", "dataloader_num_workers", "log_level", "disable_tqdm", "gradient_checkpointing_kwargs",
    "remove_unused_columns", "tf32", "ddp_timeout", "attn_implementation", "trust_remote_code", "use_liger_kernel",
})  # fmt: skip
"""Keys of where and how TRL runs, which say nothing about what is learned."""
OFF = {"report_to": ("none", ["none"], []), "use_vllm": (False,), "fp16": (False,), "bf16": (False,), "lora_dropout": (0,)}
"""Keys that ask for nothing where they have one of these values."""
LOSSES = {
    "sigmoid": "dpo", "hinge": "rso_hinge", "ipo": "ipo_mean", "robust": "robust_dpo", "simpo": "simpo", "exo_pair": "exo",
    "nca_pair": "nca_pair", "bco_pair": "bco_pair", "sppo_hard": "sppo", "aot": "aot_paired", "aot_pair": "aot_paired",
    "apo_zero": "apo_zero", "apo_down": "apo_down", "discopop": "discopop", "kto": "kto", "grpo": "grpo", "bnpo": "grpo",
    "sigmoid_norm": "dpo_norm", "aot_unpaired": "aot", "alphapo": "alphapo", "apo_zero_unpaired": "apo_zero_unpaired",
    "dr_grpo": "dr_grpo", "dapo": "dapo", "cispo": "cispo",
}  # fmt: skip
"""`loss_type` of DPO, CPO, KTO and GRPO trainers -> method."""
SCHEDULES = {"constant_with_warmup": "constant"}
ONLINE = ("num_generations", "num_generations_per_prompt", "rloo_k", "num_ppo_epochs")


@dataclass(kw_only=True)
class Carried:
    """What was found: `left` names every key without a place here, with the reason where there is one."""

    model: str = ""
    data: str = ""
    method: str = ""
    train: dict[str, Any] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    arm: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    precision: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def read(path: Path) -> dict[str, Any]:
    """The flat mapping of a YAML or JSON file. UserError for anything else."""
    from evenhand.configfile.document import parse
    from evenhand.configfile.text_file import read_text

    data = parse(read_text(path), str(path)).data
    if not isinstance(data, Mapping) or not data:
        raise UserError("no settings are in it", where=str(path), fix="give the YAML of `trl dpo --config`, or a config as JSON")
    return dict(data)


def carried(given: Mapping[str, Any], method: str = "") -> Carried:
    """TRL's settings in our words. A key that means nothing here is listed, never dropped in silence."""
    rest = {k: v for k, v in given.items() if v is not None and k not in SILENT and v not in OFF.get(k, ())}
    found = Carried(method=method or _method(rest))
    found.model, found.data = str(rest.pop("model_name_or_path", "")), _data(rest)
    _budget(rest, found)
    _optimizer(rest, found)
    _kind(rest, found)
    _adapter(rest, found)
    _lengths(rest, found)
    _arm(rest, found)
    if "seed" in rest:
        found.seeds = (int(rest.pop("seed")),)
    _precision(rest, found)
    found.left = [f"{key}: {ours(key) or 'it has no counterpart here'}" for key in rest]
    return found


def _method(rest: dict[str, Any]) -> str:
    if "loss_type" in rest:
        loss = rest.pop("loss_type")
        if not isinstance(loss, str) or loss not in LOSSES:
            raise UserError(f"`loss_type` is {loss!r}", where="--from-trl", fix="name ours with --method: docs/methods.md")
        return LOSSES[loss]
    if any(key in rest for key in ONLINE):
        return "rloo" if "rloo_k" in rest else "ppo" if "num_ppo_epochs" in rest else "grpo"
    return "dpo" if "beta" in rest else ""


def _data(rest: dict[str, Any]) -> str:
    name = rest.pop("dataset_name", "")
    for key in ("dataset_train_split", "dataset_test_split", "dataset_config", "datasets"):
        if key in rest and rest[key] in ("train", "test"):
            rest.pop(key)
    return str(name)


def _budget(rest: dict[str, Any], found: Carried) -> None:
    """A step of theirs is per device and accumulated, and of completions where several are sampled for a prompt."""
    each, times = rest.pop("per_device_train_batch_size", 8), rest.pop("gradient_accumulation_steps", 1)
    samples = next((rest[key] for key in ONLINE[:3] if key in rest), 1)
    found.train["prompts_per_step"] = max(1, int(each * times) // int(samples))
    steps = rest.pop("max_steps", -1)
    epochs = rest.pop("num_train_epochs", 3.0)
    found.train |= {"steps": int(steps)} if steps > 0 else {"epochs": float(epochs)}
    if "warmup_steps" in rest and found.train.get("steps"):
        found.train["warmup"] = round(rest.pop("warmup_steps") / found.train["steps"], 4)


def _optimizer(rest: dict[str, Any], found: Carried) -> None:
    for theirs, name in (
        ("learning_rate", "learning_rate"), ("warmup_ratio", "warmup"), ("weight_decay", "weight_decay"),
        ("max_grad_norm", "clip"), ("adam_epsilon", "eps"), ("gradient_checkpointing", "gradient_checkpointing"),
    ):  # fmt: skip
        if theirs in rest:
            found.train[name] = rest.pop(theirs)
    if "lr_scheduler_type" in rest:
        kind = str(rest.pop("lr_scheduler_type"))
        found.train["schedule"] = SCHEDULES.get(kind, kind)
    if "adam_beta1" in rest or "adam_beta2" in rest:
        found.train["betas"] = [rest.pop("adam_beta1", 0.9), rest.pop("adam_beta2", 0.999)]


def _kind(rest: dict[str, Any], found: Carried) -> None:
    """Every AdamW of theirs is ours, in eight bits where theirs is; another optimizer is left, and said."""
    kind = str(getattr(rest.get("optim"), "value", rest.get("optim", "")))
    if kind.removeprefix("paged_").startswith("adamw") and "4bit" not in kind:  # galore_adamw, say, is another
        rest.pop("optim")
        found.train |= {"optimizer": "adamw_8bit"} if "8bit" in kind else {}


def _adapter(rest: dict[str, Any], found: Carried) -> None:
    names = {"lora_r": "rank", "lora_alpha": "alpha", "lora_target_modules": "targets", "use_rslora": "rslora"}
    given = {ours: rest.pop(theirs) for theirs, ours in names.items() if theirs in rest}
    if rest.pop("use_dora", False):
        given["form"] = "dora"
    if rest.pop("use_peft", bool(given)):
        if isinstance(targets := given.get("targets"), str):
            given["targets"] = "all_linear" if targets == "all-linear" else [targets]
        if rest.pop("load_in_4bit", False):
            given["quantize"] = str(rest.pop("bnb_4bit_quant_type", "nf4"))
        found.train["adapter"] = given


def _precision(rest: dict[str, Any], found: Carried) -> None:
    """Their `bf16` leaves the weights as they are loaded, in float32 unless it is said."""
    dtype = rest.pop("torch_dtype", rest.pop("dtype", None))
    found.precision = {"dtype": dtype} if dtype in ("bfloat16", "float16", "float32") else {}
    if rest.pop("bf16", False) and found.precision.get("dtype", "float32") == "float32":
        found.precision = {"dtype": "float32", "matmul": "bfloat16"}


def _lengths(rest: dict[str, Any], found: Carried) -> None:
    """Their `max_length` is of both together."""
    prompt, completion, both = (rest.pop(f"max_{k}length", None) for k in ("prompt_", "completion_", ""))
    found.lengths = {k: int(v) for k, v in (("prompt", prompt), ("completion", completion)) if v}
    if both and "completion" not in found.lengths:
        if found.lengths.get("prompt", both) >= both:  # which would leave nothing for the answer
            found.lengths["prompt"] = max(1, int(both) // 2)
        found.lengths["completion"] = max(1, int(both) - found.lengths["prompt"])


def _arm(rest: dict[str, Any], found: Carried) -> None:
    online = found.method in ("grpo", "dr_grpo", "dapo", "cispo", "rloo", "ppo")
    names = {
        "num_generations": "completions_per_prompt", "rloo_k": "completions_per_prompt", "num_iterations": "updates",
        "epsilon": "low", "epsilon_high": "high", "cliprange": "clip", "kl_coef": "kl", "beta": "kl" if online else "beta",
        "simpo_gamma": "margin", "desirable_weight": "weight_desirable", "undesirable_weight": "weight_undesirable",
        "rpo_alpha": "likelihood",
    }  # fmt: skip
    if found.method in ("ipo", "ipo_mean"):
        names["beta"] = "tau"
    for theirs, name in names.items():
        if theirs in rest:
            found.arm[name] = rest.pop(theirs)
    for name in ("temperature", "top_p", "top_k", "min_p"):
        if name in rest:
            found.sampling[name] = rest.pop(name)
    if rest.get("label_smoothing") and found.method in ("dpo", "robust_dpo"):
        found.method, found.arm["flip"] = ("cdpo" if found.method == "dpo" else found.method), rest.pop("label_smoothing")
