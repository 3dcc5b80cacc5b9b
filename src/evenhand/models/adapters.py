"""Low-rank adapters: `W x` becomes `W x + s B (A x)`, and only A and B learn; with DoRA the lengths of W's rows as well.

The layers are peft's; which of them there are, how they begin, and what they stand for when they are merged is said here. Source:
Hu et al. 2021, equation 3 (s = alpha / r); Kalajdzievski 2023 for s = alpha / sqrt(r). Full fine-tuning is the case in which B A
has full rank.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from evenhand.core import nf4
from evenhand.errors import UserError, did_you_mean
from evenhand.models.adapter_config import Adapter
from evenhand.models.adapter_layers import NAME, adapted, is_adapted, learned, put
from evenhand.models.fast_linear import FastLinear, with_fast_products
from evenhand.models.heads import RewardModel, ValuePolicy, score_head
from evenhand.models.hidden_states import backbone
from evenhand.models.low_rank import Magnitude, row_lengths
from evenhand.models.packed_layers import PackedLinear
from evenhand.models.spread_load import when_read
from evenhand.seeding import generator

if TYPE_CHECKING:
    from evenhand.models.backbone import Trunk


def peft() -> Any:
    """The library; UserError where it is not installed."""
    try:
        import peft as library
    except ImportError as error:
        raise UserError("peft is not installed", where="adapter", fix="pip install 'evenhand[adapters]'") from error
    return library


def attach(model: Trunk, adapter: Adapter, *, seed: int) -> None:
    """Give every network of `model` the adapter; from now on only adapter, heads and `modules_to_save` learn.

    A is drawn by (seed, layer), whatever else there is. Raises UserError for targets that match nothing.
    """
    for fault in adapter.problems("train.adapter"):
        raise fault
    whole: list[nn.Parameter] = []
    for prefix, hf in networks(model).items():
        chosen = targeted(hf, adapter.targets)
        modules = saved_whole(hf, adapter.modules_to_save, chosen)
        if adapter.quantize is not None:
            _refuse_packed(hf, modules)
            pack(hf)
        inject(hf, adapter, chosen)
        for name, layer in adapted(hf):
            when_read(hf, name, partial(_begin, layer, "adapter", seed, f"{prefix}{name}"))
        whole += [p for module in modules.values() for p in module.parameters()]
    whole += [p for head in heads(model) for p in head.parameters()]
    model.requires_grad_(False)
    for _, layer in (pair for hf in networks(model).values() for pair in adapted(hf)):
        whole += learned(layer).values()
    for parameter in whole:
        parameter.requires_grad_(True)
    model.adapter = adapter


def pack(hf: Any) -> Any:
    """The network `hf`, every linear layer of its trunk kept in four bits. Embeddings, head and norms stay as they are.

    Raises UserError for a network whose layers are no plain linear ones.
    """
    for name, layer in linear_layers(hf).items():
        if type(layer) in (nn.Linear, FastLinear):
            when_read(hf, name, partial(_pack, hf, name))
        elif type(layer) is not PackedLinear:
            raise UserError(
                f"{name} of {type(hf).__name__} is a {type(layer).__name__}, which cannot be kept in four bits",
                where="train.adapter.quantize", fix="remove `quantize`: the adapter works without",
            )  # fmt: skip
    return hf


def _pack(hf: Any, name: str) -> None:
    place = f"{name}.base_layer" if is_adapted(hf.get_submodule(name)) else name
    put(hf, place, PackedLinear(hf.get_submodule(place)))


def _refuse_packed(hf: Any, modules: Mapping[str, nn.Module]) -> None:
    inside = set(linear_layers(hf).values())
    for name, module in modules.items():
        if inside & set(module.modules()):
            raise UserError(
                f"'{name}' would learn whole and be kept in four bits", where="train.adapter.modules_to_save",
                fix="remove `quantize`, or name it among `targets`",
            )  # fmt: skip


def round_weights(hf: Any) -> Any:
    """The plain network `hf` with the weights that it would have after `pack`."""
    for name, layer in linear_layers(hf).items():
        when_read(hf, name, partial(_round, layer))
    return hf


@torch.no_grad()
def _round(layer: nn.Linear) -> None:
    layer.weight.copy_(nf4.rounded(layer.weight))


def detach(model: Trunk) -> None:
    """Take adapters off again, unmerged: the weights are those from before `attach`, where no other learned, and all learn.

    Packed layers stay packed.
    """
    for hf in networks(model).values():
        for name, layer in adapted(hf):
            put(hf, name, layer.base_layer)
        del hf.peft_config
    model.requires_grad_(True)
    model.adapter = None


def networks(model: Trunk) -> dict[str, Any]:
    """The transformers networks that learn, by the prefix of their layers' names: the model's own, and a critic's."""
    critic = getattr(model, "critic", None)
    return {"": model.hf} | ({"critic.": critic.hf} if critic is not None else {})


def heads(model: Trunk) -> list[nn.Module]:
    """Heads that begin untrained, and so learn all of their weights: of values, and of scores."""
    found: list[nn.Module] = [model.value_head] if isinstance(model, ValuePolicy) else []
    return [*found, score_head(model.hf)] if isinstance(model, RewardModel) else found


def linear_layers(hf: Any) -> dict[str, Any]:
    """The layers that can have an adapter: linear ones of the trunk. A head's weight is read directly, so it is none of them.

    Classes derived from torch's linear layer count where they are called so (FalconLinear); others are routers and the like.
    """
    from transformers.pytorch_utils import Conv1D

    inside = set(backbone(hf).modules())
    layers = {name: m for name, m in hf.named_modules() if isinstance(m, nn.Linear | Conv1D) and m in inside}
    return {name: m for name, m in layers.items() if type(m) is Conv1D or type(m).__name__.endswith("Linear")}


def targeted(hf: Any, targets: str | Sequence[str]) -> list[str]:
    """Full names of the layers that `targets` mean; UserError for one that means none."""
    known = linear_layers(hf)
    if not known:
        fix = "train all weights: `adapter: null`"
        raise UserError(f"{type(hf).__name__} has no linear layer", where="train.adapter", fix=fix)
    if targets == "all_linear":
        return list(known)
    for target in targets:
        if not any(_ends(name, target) for name in known):
            raise _no_layer(hf, target, known)
    return [name for name in known if any(_ends(name, target) for target in targets)]


def _no_layer(hf: Any, target: str, known: dict[str, nn.Module]) -> UserError:
    others = [m for name, m in hf.named_modules() if _ends(name, target)]
    if any(m in (hf.get_output_embeddings(), hf.get_input_embeddings()) for m in others):
        return UserError(
            f"'{target}' has no adapter of low rank", where="train.adapter.targets",
            why="log-probs are read directly off the weights of embeddings and head",
            fix=f"train it whole: modules_to_save: [{target}]",
        )  # fmt: skip
    if others:
        fix = did_you_mean(target, _leaves(known))
        return UserError(
            f"'{target}' is a {type(others[0]).__name__}, not a linear layer", where="train.adapter.targets", fix=fix
        )
    return UserError(f"no layer is called '{target}'", where="train.adapter.targets", fix=did_you_mean(target, _leaves(known)))


def saved_whole(hf: Any, names: Sequence[str], chosen: Sequence[str]) -> dict[str, nn.Module]:
    """The modules that learn all of their weights, by full name; UserError where there is none, or it is adapted as well."""
    modules = {name: m for name, m in hf.named_modules() if name and any(True for _ in m.parameters())}
    found: dict[str, nn.Module] = {}
    for wanted in names:
        matching = {name: m for name, m in modules.items() if _ends(name, wanted)}
        if not matching:
            fix = did_you_mean(wanted, _leaves(modules))
            raise UserError(f"no module is called '{wanted}'", where="train.adapter.modules_to_save", fix=fix)
        for name in matching:
            if both := [c for c in chosen if f"{c}.".startswith(f"{name}.") or f"{name}.".startswith(f"{c}.")]:
                raise UserError(
                    f"'{wanted}' would learn whole and by an adapter ({both[0]})", where="train.adapter.modules_to_save",
                    fix="name it in one place only",
                )  # fmt: skip
        found |= matching
    return found


def _leaves(names: Any) -> set[str]:
    return {leaf for name in names if not (leaf := name.rsplit(".", 1)[-1]).isdigit()}


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def inject(hf: Any, adapter: Adapter, chosen: Sequence[str]) -> None:
    """Put peft's layers in the place of the chosen ones, and check that these and no others were replaced."""
    everywhere = [name for name, m in hf.named_modules() if any(_ends(name, leaf) for leaf in _leaves(chosen))]
    named = sorted(_leaves(chosen)) if set(everywhere) == set(chosen) else sorted(chosen)
    transposed = not isinstance(hf.get_submodule(chosen[0]), nn.Linear)
    alpha = int(adapter.alpha) if float(adapter.alpha).is_integer() else adapter.alpha
    library = peft()
    config = library.LoraConfig(
        r=adapter.rank, lora_alpha=alpha, target_modules=named, use_rslora=adapter.rslora, lora_dropout=0.0,
        fan_in_fan_out=transposed, init_lora_weights=False, use_dora=adapter.form == "dora",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft advises on settings that are checked here
        library.inject_adapter_in_model(config, hf, NAME)
    if {name for name, _ in adapted(hf)} != set(chosen):
        raise UserError(f"peft cannot adapt these layers of {type(hf).__name__}", where="train.adapter", fix="name other targets")
    with_fast_products(hf)
    hf.eval()


@torch.no_grad()
def _begin(layer: Any, *key: str | int) -> None:
    for part in (layer.lora_A, layer.lora_B):
        part.to_empty(device=layer.base_layer.weight.device)
    a, b = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
    drawn = torch.rand(a.shape, generator=generator(*key), dtype=torch.float32)
    a.copy_((2 * drawn - 1) / math.sqrt(a.shape[1]))
    b.zero_()
    if NAME in layer.lora_magnitude_vector:
        weight = layer.base_layer.weight
        lengths = row_lengths(weight.to(torch.promote_types(weight.dtype, torch.float32)), transposed=layer.fan_in_fan_out)
        layer.lora_magnitude_vector[NAME] = Magnitude(lengths.to(a.dtype))


def size(hf: Any, adapter: Adapter) -> int:
    """Weights that would learn if `hf` had the adapter: rank (in + out) a layer (DoRA: out more), and modules trained whole.

    Meta tensors will do. Raises UserError for names that mean nothing.
    """
    chosen = targeted(hf, adapter.targets)
    whole = {p for m in saved_whole(hf, adapter.modules_to_save, chosen).values() for p in m.parameters()}
    shapes = [hf.get_submodule(n).weight.shape for n in chosen]
    outputs = [0 if isinstance(hf.get_submodule(n), nn.Linear) else 1 for n in chosen]
    lengths = sum(shape[i] for shape, i in zip(shapes, outputs, strict=True)) if adapter.form == "dora" else 0
    return adapter.rank * sum(map(sum, shapes)) + lengths + sum(p.numel() for p in whole)


def counted(model: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    packed = sum(m.in_features * m.out_features for m in model.modules() if type(m) is PackedLinear)
    return sum(n for n, learns in sizes if learns), packed + sum(n for n, _ in sizes)
