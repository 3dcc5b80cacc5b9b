"""Writing a network that processes share: a tensor at a time goes to the first of them, which writes it where it belongs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evenhand.models.layer_turns import decoder_layers, first, in_turn, shards
from evenhand.models.sharding import but_layers, whole

if TYPE_CHECKING:
    from evenhand.models.backbone import Trunk

NAMES = {torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""What safetensors calls them, in the order in which it writes them."""


def at_hand(model: Trunk) -> AbstractContextManager[None]:
    """Inside, all that share a network may save it together: each holds what lies outside of layers, and one layer at once.

    All of it where that is no way to write it: adapters that are merged, and what is stored by other names than a layer's.
    """
    if not shards(model):
        return nullcontext()
    return but_layers(model) if model.adapter is None and _stored_by_layer(model.hf) else whole(model)


def save_pretrained(model: Trunk, folder: Path) -> None:
    """`model.hf.save_pretrained(folder)`, byte by byte; of a network in parts all of whose holders call this, see `at_hand`."""
    hf: Any = model.hf
    writes = first(model)
    if not any(hasattr(p, "full_tensor") for p in hf.parameters()):
        if writes:
            hf.save_pretrained(folder)
        return

    def write(tensors: Mapping[str, Tensor], file: str | Path, metadata: Mapping[str, str]) -> None:
        """In the place of safetensors' own, which takes tensors that are all at hand."""
        places, header = laid_out(tensors, metadata)
        stored = _AsStored(hf)
        with open(file, "wb") if writes else nullcontext() as opened:
            if opened is not None:
                opened.write(header)
            for name in in_turn(hf, places):
                if opened is not None:
                    opened.write(_bytes(stored[name]))

    with _writing(hf, write):
        hf.save_pretrained(folder, state_dict=_shapes(hf))


def laid_out(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[list[str], bytes]:
    """The order in which safetensors writes tensors of these shapes, and all that comes before them.

    >>> laid_out({"b": torch.zeros(2), "a": torch.zeros(1, dtype=torch.float16)}, {"format": "pt"})[0]
    ['b', 'a']
    """
    order = {dtype: place for place, dtype in enumerate(NAMES)}
    names = sorted(tensors, key=lambda name: (order[tensors[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        tensor, begin = tensors[name], end
        end = begin + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return names, len(text).to_bytes(8, "little") + text


def _bytes(tensor: Tensor) -> Any:
    own = tensor.detach().to("cpu", copy=True)  # memory that numpy has seen can no longer be given back by who gathered it
    return own.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _shapes(hf: Any) -> dict[str, Tensor]:
    """The network's tensors, on no device."""
    return {name: torch.empty(t.shape, dtype=t.dtype, device="meta") for name, t in hf.state_dict().items()}


def _stored_by_layer(hf: Any) -> bool:
    """Whether what is stored in another form than it computes with (experts of a mixture) is a layer's, by its name."""
    from transformers.core_model_loading import revert_weight_conversion

    state, layers = _shapes(hf), tuple(f"{name}." for name in decoder_layers(hf))
    stored = revert_weight_conversion(hf, dict(state))
    as_it_computes = {name for name in stored if stored[name] is state.get(name)}
    return all(tensor.dtype in NAMES for tensor in state.values()) and all(
        name.startswith(layers) for name in stored.keys() - as_it_computes
    )


class _AsStored:
    """The tensors that are at hand, by their names in files; those of a layer are made when one of them is first asked for."""

    def __init__(self, hf: Any) -> None:
        self._hf = hf
        self._made: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        from transformers.core_model_loading import revert_weight_conversion

        if name not in self._made:
            self._made = {}  # those of the layer before
            state = self._hf.state_dict()
            here = {key: tensor for key, tensor in state.items() if not hasattr(tensor, "full_tensor")}
            self._made = revert_weight_conversion(self._hf, here)
        return self._made[name]


@contextmanager
def _writing(hf: Any, write: Any) -> Iterator[None]:
    """Inside, transformers hands what belongs in a file of `hf` to `write`, on every rank (by itself it would on the first)."""
    from transformers import modeling_utils

    before = modeling_utils.safe_save_file
    modeling_utils.safe_save_file = write
    hf.should_save_on_this_rank = lambda *_, **__: True
    try:
        yield
    finally:
        modeling_utils.safe_save_file = before
        del hf.should_save_on_this_rank
