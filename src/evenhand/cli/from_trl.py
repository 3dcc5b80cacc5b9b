"""A configuration of TRL's trainers as settings of an experiment, and what has no place there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from evenhand.configfile.text_file import read_text
from evenhand.errors import UserError
from evenhand.methods import METHODS, build
from evenhand.spec.aliases import ours
from evenhand.spec.arms import Arm
from evenhand.train.optim import SCHEDULES

SILENT = re.compile(
    r"(_n_gpu|accelerator_|activation_(checkpointing|offloading)|attn_impl|average_tokens|cast_lm_head|data_seed|dataloader_|dataset_(config|num_"
    r"proc)|ddp_|debug|deepspeed|disable_tqdm|do_|ds3_|enable_jit|eval_|fsdp|generation_batch|gradient_checkpointing_kwargs|"
    r"hub_|ignore_(bias|data)|include_|length_column|local_rank|log_|logging_|lora_task|no_cuda|output_dir|overwrite_|"
    r"per_device_eval|precompute_ref|prediction_loss|project|push_to|ray_|remove_unused|restore_|run_name|save_|skip_|tf32|"
    r"train_sampling|truncation_mode|trust_remote|use_(cache|cpu|liger|mps|transformers)|vllm_(?!importance))"
)
"""Beginnings of keys of where and how TRL runs, or of what is always so here: they say nothing about what is learned."""
OFF: Mapping[str, tuple[Any, ...]] = {
    "report_to": ("none", ["none"]), "disable_dropout": (True, False), "shuffle_dataset": (True, False),
    "repetition_penalty": (1,), "scale_rewards": ("group", True), "importance_sampling_level": ("token",),
    "multi_objective_aggregation": ("sum_then_normalize",), "f_divergence_type": ("reverse_kl",), "top_entropy_quantile": (1,),
    "dataset_train_split": ("train",), "dataset_test_split": ("test",), "chat_template_path": ("",),
}  # fmt: skip
"""Keys that ask for nothing where they have one of these values; None, 0, "" and what is empty ask for nothing anywhere."""
WITH: Mapping[str, tuple[str, ...]] = {
    "sync_ref_model": ("ref_model_mixup_alpha", "ref_model_sync_steps"),
    "f_divergence_type": ("f_alpha_divergence_coef",),
    "use_vllm": ("vllm_importance_sampling_correction", "vllm_importance_sampling_mode", "vllm_importance_sampling_clip_max"),
    "use_adaptive_entropy": ("entropy_coef_min", "entropy_coef_max", "entropy_coef_delta", "entropy_target"),
    "load_in_4bit": ("bnb_4bit_quant_type", "bnb_4bit_quant_storage", "use_bnb_nested_quant"),
    "use_peft": ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save", "use_rslora"),
}
"""Keys that mean nothing where the first of them is given and off."""
OF_DPO = {
    "sigmoid": "dpo", "hinge": "rso_hinge", "ipo": "ipo_mean", "robust": "robust_dpo", "exo_pair": "exo", "nca_pair": "nca_pair",
    "bco_pair": "bco_pair", "sppo_hard": "sppo", "aot": "aot_paired", "aot_pair": "aot_paired", "aot_unpaired": "aot",
    "apo_zero": "apo_zero", "apo_down": "apo_down", "discopop": "discopop", "sigmoid_norm": "dpo_norm",
}  # fmt: skip
"""`loss_type` of the DPO trainer -> method."""
LOSSES = OF_DPO | {
    "nll": "sft", "chunked_nll": "sft", "dft": "dft", "simpo": "simpo", "alphapo": "alphapo", "kto": "kto",
    "apo_zero_unpaired": "apo_zero_unpaired", "grpo": "grpo", "bnpo": "grpo", "dr_grpo": "dr_grpo", "dapo": "dapo",
    "cispo": "cispo", "sapo": "sapo", "vespo": "vespo", "luspo": "luspo",
}  # fmt: skip
"""`loss_type` of SFT, DPO, CPO, KTO and GRPO trainers -> method."""
BETA_OF_DPO = 0.1
"""What TRL's DPO trainer takes for every loss where nothing is named; methods here have the defaults of their papers."""
SCHEDULED = {"constant_with_warmup": "constant"}
DIVERGENCES = {"forward_kl": "forward_kl", "js_divergence": "jensen_shannon", "alpha_divergence": "alpha"}
"""`f_divergence_type` beside the reverse KL of DPO -> `divergence` of f_dpo."""
DPO_LOSSES = frozenset({"cdpo", "rpo", "mpo", "f_dpo", "ld_dpo", "wpo", *OF_DPO.values()})
"""Methods that TRL's DPO trainer is, by its losses and its other settings."""
RATIOS = ("grpo", "dr_grpo", "dapo", "gspo", "cispo")
"""Methods whose ratios TRL bounds by `epsilon` below and by `epsilon_high`, which is `epsilon` unless it is named, above."""
ONLY = {
    "discopop_tau": ("discopop",), "sapo_temperature_pos": ("sapo",), "sapo_temperature_neg": ("sapo",),
    "vespo_k_pos": ("vespo",), "vespo_lambda_pos": ("vespo",), "vespo_k_neg": ("vespo",), "vespo_lambda_neg": ("vespo",),
}  # fmt: skip
"""Settings that TRL reads for one loss."""
NAMES = {
    "num_generations": "completions_per_prompt", "rloo_k": "completions_per_prompt", "num_iterations": "updates",
    "cliprange": "clip", "kl_coef": "kl", "simpo_gamma": "margin", "desirable_weight": "weight_desirable",
    "undesirable_weight": "weight_undesirable", "rpo_alpha": "likelihood", "discopop_tau": "width", "entropy_coef": "entropy",
    "mask_truncated_completions": "mask_truncated", "sapo_temperature_pos": "tau", "sapo_temperature_neg": "tau_negative",
    "vespo_k_pos": "k", "vespo_lambda_pos": "fall", "vespo_k_neg": "k_negative", "vespo_lambda_neg": "fall_negative",
}  # fmt: skip
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

    data = parse(read_text(path), str(path)).data
    if not isinstance(data, Mapping) or not data:
        raise UserError("no settings are in it", where=str(path), fix="give the YAML of `trl dpo --config`, or a config as JSON")
    return dict(data)


def carried(given: Mapping[str, Any], method: str = "") -> Carried:
    """TRL's settings in our words. A key that means nothing here is listed, never dropped in silence."""
    idle = {key for first, further in WITH.items() if first in given and _nothing(first, given[first]) for key in further}
    rest = {k: v for k, v in given.items() if v is not None and k not in idle and not SILENT.match(k)}
    found = Carried()
    found.method, found.arm = (method, {}) if method else _method(rest)
    if method:
        rest.pop("loss_type", None)
    found.model, found.data = str(rest.pop("model_name_or_path", "")), str(rest.pop("dataset_name", ""))
    _budget(rest, found)
    _optimizer(rest, found)
    _kind(rest, found)
    _adapter(rest, found)
    _lengths(rest, found)
    _variant(rest, found)
    _arm(rest, found)
    if "seed" in rest:
        found.seeds = (int(rest.pop("seed")),)
    _precision(rest, found)
    _fitting(found)
    found.left += [
        f"{key}: {ours(key) or 'it has no counterpart here'}" for key, value in rest.items() if not _nothing(key, value)
    ]
    return found


def _nothing(key: str, value: Any) -> bool:
    """Whether a key with this value asks for nothing: it is off, empty, or as it is here anyway."""
    return value in OFF.get(key, (False,)) or value in (None, "", [], {}) or (value == 0 and key not in OFF)


def _method(rest: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method and what its loss says of its settings. Raises: UserError for a loss, or a sum of them, that no method is."""
    loss, weights = rest.pop("loss_type", None), rest.pop("loss_weights", None)
    losses = list(loss) if isinstance(loss, (list, tuple)) else [loss] if loss else []
    if len(losses) > 1:
        return _sum(dict(zip(losses, weights or [1.0] * len(losses), strict=False)))
    if losses and losses[0] not in LOSSES:
        raise UserError(
            f"`loss_type` is {losses[0]!r}", where="--from-trl",
            fix=f"name a method with --method (docs/methods.md); known are {', '.join(LOSSES)}",
        )  # fmt: skip
    if losses:
        return LOSSES[losses[0]], {}
    if any(key in rest for key in ONLINE):
        rloo = "rloo_k" in rest or "normalize_advantages" in rest
        return ("rloo" if rloo else "ppo" if "num_ppo_epochs" in rest else "grpo"), {}
    return ("dpo" if "beta" in rest else ""), {}


def _sum(weights: Mapping[str, float]) -> tuple[str, dict[str, Any]]:
    """Weighted losses of one trainer: RPO's and MPO's are methods; one factor of them all is left to the learning rate."""
    if set(weights) == {"sigmoid", "sft"} and weights["sigmoid"]:
        return "rpo", {"likelihood": weights["sft"] / weights["sigmoid"]}
    if set(weights) == {"sigmoid", "bco_pair", "sft"}:
        return "mpo", {"preference": weights["sigmoid"], "quality": weights["bco_pair"], "likelihood": weights["sft"]}
    raise UserError(
        f"`loss_type` is a sum of {', '.join(map(str, weights))}", where="--from-trl",
        fix="name one method with --method (docs/methods.md); known are sigmoid with sft (rpo), and with bco_pair too (mpo)",
    )  # fmt: skip


def _budget(rest: dict[str, Any], found: Carried) -> None:
    """A step of theirs is per device and accumulated, and of completions where several are sampled for a prompt."""
    each, times = rest.pop("per_device_train_batch_size", 8), rest.pop("gradient_accumulation_steps", 1)
    samples = next((rest[key] for key in ONLINE[:3] if key in rest), 1)
    found.train["prompts_per_step"] = max(1, int(each * times) // int(samples))
    steps = rest.pop("max_steps", -1)
    epochs = rest.pop("num_train_epochs", 3.0)
    found.train |= {"steps": int(steps)} if steps > 0 else {"epochs": float(epochs)}
    warmup = rest.get("warmup_steps", 0)
    if 0 < warmup < 1 or (warmup and found.train.get("steps")):  # below one it is a share
        found.train["warmup"] = warmup if warmup < 1 else round(warmup / found.train["steps"], 4)
        rest.pop("warmup_steps")


def _optimizer(rest: dict[str, Any], found: Carried) -> None:
    for theirs, name in (
        ("learning_rate", "learning_rate"), ("warmup_ratio", "warmup"), ("weight_decay", "weight_decay"),
        ("max_grad_norm", "clip"), ("adam_epsilon", "eps"), ("gradient_checkpointing", "gradient_checkpointing"),
    ):  # fmt: skip
        if theirs in rest:
            found.train[name] = rest.pop(theirs)
    if "lr_scheduler_type" in rest:
        kind = str(rest["lr_scheduler_type"]).rpartition(".")[2].lower()
        kind = SCHEDULED.get(kind, kind)
        if kind in SCHEDULES:
            rest.pop("lr_scheduler_type")
            found.train["schedule"] = kind
    if "adam_beta1" in rest or "adam_beta2" in rest:
        found.train["betas"] = [rest.pop("adam_beta1", 0.9), rest.pop("adam_beta2", 0.999)]


def _kind(rest: dict[str, Any], found: Carried) -> None:
    """Every AdamW of theirs is ours, in eight bits where theirs is; another optimizer is left, and said."""
    kind = str(getattr(rest.get("optim"), "value", rest.get("optim", "")))
    if kind.removeprefix("paged_").startswith("adamw") and "4bit" not in kind:  # galore_adamw, say, is another
        rest.pop("optim")
        found.train |= {"optimizer": "adamw_8bit"} if "8bit" in kind else {}


def _adapter(rest: dict[str, Any], found: Carried) -> None:
    names = {"lora_r": "rank", "lora_alpha": "alpha", "lora_target_modules": "targets", "use_rslora": "rslora",
             "lora_modules_to_save": "modules_to_save"}  # fmt: skip
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


def _variant(rest: dict[str, Any], found: Carried) -> None:
    """Settings that make another method of one, or name its own ones otherwise."""
    was = found.method
    if was == "dpo":
        mixed = rest.pop("f_alpha_divergence_coef", 1.0)
        if (kind := str(rest.pop("f_divergence_type", "reverse_kl")).rpartition(".")[2].lower()) in DIVERGENCES:
            found.method, found.arm["divergence"] = "f_dpo", DIVERGENCES[kind]
            found.arm |= {"alpha": round(1 - mixed, 6)} if kind == "alpha_divergence" else {}  # theirs is one minus the paper's
        elif "ld_alpha" in rest:
            found.method, found.arm["alpha"] = "ld_dpo", rest.pop("ld_alpha")
        elif rest.pop("use_weighting", False):
            found.method = "wpo"
    if (was in ("dpo", "robust_dpo", "exo")) and (flip := rest.pop("label_smoothing", 0)):
        found.method, found.arm["flip"] = ("cdpo" if found.method == "dpo" else found.method), flip
    if was == "grpo" and rest.get("importance_sampling_level") == "sequence":
        found.method = "gspo"
        rest.pop("importance_sampling_level")
    for key, methods in ONLY.items():
        if was not in methods:
            rest.pop(key, None)
    if rest.pop("sync_ref_model", False):
        found.arm["reference_update"] = {
            "every": int(rest.pop("ref_model_sync_steps", 512)), "mix": rest.pop("ref_model_mixup_alpha", 0.6)
        }  # fmt: skip
    if found.method in DPO_LOSSES and _defaults(found.method).get("beta", BETA_OF_DPO) != BETA_OF_DPO:
        rest.setdefault("beta", BETA_OF_DPO)
    if found.method in RATIOS:
        _ratios(rest, found)


def _ratios(rest: dict[str, Any], found: Carried) -> None:
    """The bounds of the ratio, TRL's defaults where ours differ; its `dapo` is DAPO's mean over tokens alone, without a KL."""
    own = _defaults(found.method)
    theirs = {"low": rest.get("epsilon", 0.2), "high": rest.get("epsilon_high", rest.get("epsilon", 0.2)), "kl": 0.0}
    if found.method == "cispo":  # theirs is the bound itself, and there is none below
        theirs = {"high": rest["epsilon_high"] - 1, "kl": 0.0} if "epsilon_high" in rest else {"kl": 0.0}
    if found.method == "dapo":
        theirs |= {"refill": 0, "overlong": 0.0}
    if "beta" in rest:
        del theirs["kl"]
    given = {"low": "epsilon" in rest, "high": "epsilon_high" in rest}
    found.arm |= {name: value for name, value in theirs.items() if given.get(name) or own[name] != value}
    for key in ("epsilon", "epsilon_high"):
        rest.pop(key, None)


def _arm(rest: dict[str, Any], found: Carried) -> None:
    online = found.method in METHODS and build(found.method, {}, steps=1, max_tokens=64).online
    names = NAMES | {"beta": "kl" if online else "tau" if found.method in ("ipo", "ipo_mean") else "beta"}
    if found.method in ("rloo", "ppo"):
        names["epsilon"] = "clip"
    for theirs, name in names.items():
        if theirs in rest:
            found.arm[name] = rest.pop(theirs)
    for name in ("temperature", "top_p", "top_k", "min_p"):
        if name in rest:
            found.sampling[name] = rest.pop(name)


def _fitting(found: Carried) -> None:
    """Settings that the method does not have are left, and said."""
    if found.method not in METHODS:
        return
    takes = {*_defaults(found.method), *(f.name for f in fields(Arm))}
    for name in [n for n in found.arm if n not in takes]:
        if value := found.arm.pop(name):
            found.left.append(f"{name}: {found.method} has no such setting (it was {value!r})")


def _defaults(method: str) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(METHODS[method]).parameters.items()}
