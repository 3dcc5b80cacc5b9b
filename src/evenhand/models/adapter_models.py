"""A model that learned through an adapter here, as a folder: the adapter alone, merged into its start whenever it is read.

What is read has the bytes that a merged copy would have: `W + s B A` (with DoRA its rows of the lengths that were learned) in
float32, rounded to the precision that was trained in (`low_rank.changed`). The folder is also one of peft's: beside its two
files lie the config of the whole network, tokenizer, generation config, and `trained.json`, which says the start and that
precision. Adapters from elsewhere have no such file; peft merges those (`adapter_files.apply`).
"""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from evenhand.errors import UserError
from evenhand.models import adapter_files, adapters
from evenhand.models.adapter_files import PREFIX
from evenhand.models.artifacts import NORMALISATION_FILE, VALUE_FOLDER
from evenhand.models.low_rank import changed
from evenhand.models.save import finished, padded_safely, refuse_another, write_beside
from evenhand.models.spread_load import when_read
from evenhand.store import pointer
from evenhand.store.whole import write_json

if TYPE_CHECKING:
    from evenhand.models.backbone import Trunk

_READ: WeakKeyDictionary[nn.Module, Path] = WeakKeyDictionary()
_A, _B, _M = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"


def save_adapted(
    model: Trunk, tokenizer: Any, folder: str | Path, *, start: Path, artifact: Path | None = None, stop_ids: Collection[int] = ()
) -> None:
    """Write what `model` learned on the model in the folder `start`, which stands in a store as `artifact` (None: in none).

    The folder appears complete or not at all. Raises UserError where the merged network would be another than the trained one.
    """
    tokenizer = padded_safely(model, tokenizer)
    route = None if artifact is None else pointer.route(artifact)
    on_hub = adapter_files.base_name(start)[1] is not None
    refuse_another(model)
    with finished(folder) as partial:
        config = copy.deepcopy(model.hf.config)
        config.architectures, config.dtype = [type(model.hf).__name__], model.hf.dtype
        config.save_pretrained(partial)
        if model.hf.can_generate():
            model.hf.generation_config.save_pretrained(partial)
        adapter_files.write(model, partial, start=start, name=None if on_hub else route)
        told = {"start": route or str(start), "dtype": str(model.hf.dtype).removeprefix("torch.")}
        if model.adapter is not None and model.adapter.quantize is not None:
            told["quantize"] = model.adapter.quantize
        if artifact is not None:
            told["start_weights"] = pointer.recorded_weights(artifact)
        write_json(partial / pointer.TRAINED, told)
        write_beside(model, tokenizer, partial, stop_ids)


@torch.no_grad()
def merge(hf: Any, folder: Path) -> Any:
    """The start `hf`, its weights changed to those that were trained, in their own precision.

    Where training had the start in four bits, its weights are first those that the four bits stand for.

    A classifier takes of a language model's adapter what belongs to the body.
    Raises UserError for a start that has other layers than the one it was trained from.
    """
    config = adapter_files.config_of(folder)
    if adapter_files.quantized(folder):
        adapters.round_weights(hf)
    rank = config["r"]
    known = {name for name, _ in hf.named_parameters(remove_duplicate=False)}
    of_another_head = config["task_type"] == "CAUSAL_LM" and hf.get_output_embeddings() is None
    scaling = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    try:
        with adapter_files.weights_of(folder, str(hf.device)) as file:
            keys = set(file.keys())
            for key in sorted(keys):
                name = key.removeprefix(PREFIX)
                if name.endswith(_A):
                    layer = hf.get_submodule(name.removesuffix(_A))
                    parts = (key.removesuffix(_A) + part for part in (_A, _B, _M))
                    given = [file.get_tensor(part) for part in parts if part in keys]
                    when_read(hf, name, partial(_change, layer, *given, scaling=scaling, transposed=config["fan_in_fan_out"]))
                elif not name.endswith((_B, _M)) and (name in known or not of_another_head):
                    hf.get_parameter(name)
                    when_read(hf, name, partial(_replace, hf.get_submodule(name.rpartition(".")[0]), name, file.get_tensor(key)))
    except (AttributeError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        raise UserError(
            "the adapter does not fit its start", where=str(folder), why=line, fix="give the model it was trained from"
        ) from error
    return hf


@torch.no_grad()
def _change(layer: Any, a: Tensor, b: Tensor, *magnitude: Tensor, scaling: float, transposed: bool) -> None:
    layer.weight.copy_(changed(layer.weight, a, b, scaling, *magnitude, transposed=transposed))


@torch.no_grad()
def _replace(module: nn.Module, name: str, value: Tensor) -> None:
    module.get_parameter(name.rpartition(".")[2]).copy_(value)


@torch.no_grad()
def with_weights(hf: Any, other: Any) -> Any:
    """`hf` with the weights of the same network in another precision."""
    for (_, own), (_, given) in zip(hf.named_parameters(), other.named_parameters(), strict=True):
        own.copy_(given)
    return hf


def remembered(hf: Any, folder: Path) -> Any:
    """`hf`, of which `read_from` then knows that it was read from that adapter's folder."""
    _READ[hf] = folder
    return hf


def read_from(hf: nn.Module) -> Path | None:
    """The folder of the adapter that was merged into this network when it was read; None for another."""
    return _READ.get(hf)


def copy_beside(folder: Path, target: Path) -> None:
    """What training left beside a model that no network holds: a value head, the scale of a reward."""
    if (head := folder / VALUE_FOLDER).is_dir():
        shutil.copytree(head, target / VALUE_FOLDER)
    if (scale := folder / NORMALISATION_FILE).is_file():
        shutil.copyfile(scale, target / NORMALISATION_FILE)
