"""Opening a network that processes share: a decoder layer stays in its files until it is spread over them.

All that lies outside of layers is read at once. What is to be done with a layer's weights waits for them (`when_read`), and so do
the self-checks of a `Trunk`, which run when all is spread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from evenhand.models.adapter_layers import removed
from evenhand.models.layer_turns import decoder_layers
from evenhand.models.library_logging import quietly

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
Place = tuple[str, str]
"""A file of weights, and a name in it."""


@dataclass(frozen=True, slots=True)
class _Unread:
    """Where the weights of each layer are, and what is done once they are here; `load` and `how` are transformers' own."""

    load: Callable[..., Any]
    how: Any
    stored: dict[str, list[Place]]
    then: dict[str, list[Callable[[], object]]] = field(default_factory=dict)


_UNREAD: WeakKeyDictionary[nn.Module, _Unread] = WeakKeyDictionary()
_WANTED: ContextVar[bool] = ContextVar("wanted", default=False)


@contextmanager
def layers_in_files(wanted: bool = True) -> Iterator[None]:
    """Inside, `opened` leaves decoder layers on no device (`meta`), for `read`."""
    before = _WANTED.set(wanted)
    try:
        yield
    finally:
        _WANTED.reset(before)


def read_whole(path: object, why: str) -> AbstractContextManager[None]:
    """Inside, a network is read whole after all. Where layers were wanted that is said."""
    if _WANTED.get():
        log.warning("%s is read whole on every rank before it is spread: %s", path, why)
    return layers_in_files(False)


def opened(auto: Any, path: str, **named: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """`auto.from_pretrained(path, ...)`, with what it says of the weights; inside `layers_in_files` without decoder layers."""
    named["output_loading_info"] = True
    if not _WANTED.get():
        return auto.from_pretrained(path, **named)
    try:
        hf, info = _without_layers(auto, path, **named)
        problem = _problem(hf)
    except (AttributeError, ImportError, RuntimeError, TypeError) as error:
        problem = f"{type(error).__name__}: {error}"
    if problem is None:
        return hf, info
    with read_whole(path, problem):
        return auto.from_pretrained(path, **named)


def on(module: nn.Module, device: str | torch.device) -> Any:
    """A network, or a part of one, on a device, but for what has no weights yet."""
    return module._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(device))


def when_read(hf: nn.Module, name: str, act: Callable[[], object]) -> None:
    """Do something with the module `name` as soon as its weights are here: now, or when its layer is read."""
    unread = _UNREAD.get(hf)
    layer = None if unread is None else _holder(name, unread.stored)
    if unread is None or layer is None:
        act()
    else:
        unread.then.setdefault(layer, []).append(act)


def read(hf: PreTrainedModel, name: str) -> None:
    """Give the decoder layer `name` its weights, where they are still in files; in the plain network, below adapters."""
    from safetensors import safe_open

    unread = _UNREAD.get(hf)
    if unread is None:
        return
    places, layer = unread.stored.pop(name), hf.get_submodule(name)
    with ExitStack() as kept, removed(layer), quietly():
        learns = {key: p.requires_grad for key, p in layer.named_parameters()}
        files = {file: kept.enter_context(safe_open(file, "pt")) for file in {file for file, _ in places}}
        unread.load(hf, {key: files[file].get_slice(key) for file, key in places}, None, unread.how)
        for key, parameter in layer.named_parameters():
            parameter.requires_grad_(learns[key])
    on(layer, hf.device)
    for act in unread.then.pop(name, ()):
        act()
    if not unread.stored:
        del _UNREAD[hf]


def _without_layers(auto: Any, path: str, **named: Any) -> Any:
    from transformers import PreTrainedModel

    library: Any = PreTrainedModel
    load = library._load_pretrained_model

    def outside(hf: Any, state: Any, files: Sequence[str], how: Any) -> Any:
        """In the place of transformers' own: it loads the weights of layers as well, but to no device, which reads none."""
        unread = _Unread(load, how, _stored(hf, files, how))
        _UNREAD[hf] = unread
        return load(hf, state, files, replace(how, device_map={"": "cpu", **dict.fromkeys(unread.stored, "meta")}))

    library._load_pretrained_model = staticmethod(outside)
    try:
        return auto.from_pretrained(path, **named)
    finally:
        library._load_pretrained_model = staticmethod(load)


def _stored(hf: PreTrainedModel, files: Sequence[str], how: Any) -> dict[str, list[Place]]:
    """Where the weights of every decoder layer are; transformers knows by which names."""
    from safetensors import safe_open
    from transformers.core_model_loading import WeightConverter, rename_source_key

    state, changes = hf.state_dict(), how.weight_mapping or ()
    converters = [change for change in changes if isinstance(change, WeightConverter)]
    renamings = [change for change in changes if not isinstance(change, WeightConverter)]
    found: dict[str, list[Place]] = {name: [] for name in decoder_layers(hf)}
    for file in files:
        with safe_open(file, "pt") as content:
            for key in content.keys():  # noqa: SIM118 (not a mapping)
                name, _ = rename_source_key(key, renamings, converters, hf.base_model_prefix, state)
                if name not in state and key in state:
                    name = key
                if (layer := _holder(name, found)) is not None:
                    found[layer].append((file, key))
    return found


def _holder(name: str, layers: Mapping[str, Any]) -> str | None:
    """The layer that the module or weight `name` is in."""
    return next((layer for layer in layers if f"{name}.".startswith(f"{layer}.")), None)


def _problem(hf: PreTrainedModel) -> str | None:
    """Why layers cannot be read one by one, or None where they can."""
    layers, seen = _UNREAD[hf].stored, set[int]()
    for name, tensor in (*hf.named_parameters(remove_duplicate=False), *hf.named_buffers(remove_duplicate=False)):
        if tensor.is_meta:
            if _holder(name, layers) is None:
                return f"{name} is read with a layer that it is no part of"
            if id(tensor) in seen:
                return f"{name} is a weight of two layers"
            seen.add(id(tensor))
    return None if layers else "it has no decoder layers"
