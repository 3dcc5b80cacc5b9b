"""The weights of a policy for an engine with a copy of its own: named by their content, written with every tensor."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evenhand.models.adapter_layers import merged
from evenhand.models.decode import not_a_number
from evenhand.models.library_logging import quietly

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from evenhand.engines.local import HasModel

_CHUNK = 1 << 22
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
HEAD_FILE = "tied_head.safetensors"


@torch.no_grad()
def version(hf: PreTrainedModel) -> str:
    """16 hex digits of the names and bits of all weights: other weights, another version, whoever changed them.

    A weighted sum of the bits is taken where the weights lie (modulo 2^64), so that no copy of them is made.

    >>> layer = torch.nn.Linear(2, 2)
    >>> before = version(layer)
    >>> layer.weight.data[0, 1] += 1
    >>> before == version(layer), len(before)
    (False, 16)
    """
    found = hashlib.blake2b(digest_size=8)
    for name, weight in hf.state_dict().items():  # with what is packed into buffers
        found.update(f"{name} {tuple(weight.shape)} {_sum_of_bits(weight)}\n".encode())
    return found.hexdigest()


def _sum_of_bits(weight: Tensor) -> int:
    """sum_i (2 i + 1) bits_i modulo 2^64, bits_i the i-th number's bits as an integer."""
    bits = weight.detach().contiguous().view(-1).view(_INTEGERS[weight.element_size()])
    total = 0
    for start in range(0, bits.numel(), _CHUNK):
        part = bits[start : start + _CHUNK].to(torch.int64)
        place = 2 * torch.arange(start, start + part.numel(), device=part.device) + 1
        total += int((part * place).sum())
    return total % 2**64


def export(policy: HasModel, folder: Path) -> None:
    """The weights in transformers' format, adapters merged, a head that shares the embedding's weights written out too.

    An engine that is told to load weights anew keeps the head it has where the folder names none (seen with vLLM 0.32.0: every
    log-prob is then wrong, without a message). Raises UserError for weights that have diverged: with those a server only fails.
    """
    from safetensors.torch import save_file

    hf = policy.hf
    if not all(bool(weight.isfinite().all()) for weight in hf.parameters()):
        raise not_a_number()
    with quietly(), merged(hf):
        hf.save_pretrained(folder)
        head = tied_head(hf)
    if head is None:
        return
    name, weight = head
    save_file({name: weight}, folder / HEAD_FILE, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.exists():  # several files: only those that the index names are read
        known = json.loads(index.read_text())
        known["weight_map"][name] = HEAD_FILE
        index.write_text(json.dumps(known))


def tied_head(hf: PreTrainedModel) -> tuple[str, Tensor] | None:
    """Name and weight of a head that is the embedding's own tensor; None where it has weights of its own."""
    head, embedding = hf.get_output_embeddings(), hf.get_input_embeddings()
    weight: Tensor | None = getattr(head, "weight", None)
    shared = getattr(embedding, "weight", None) is weight
    if weight is None or not shared:
        return None
    name = next(name for name, module in hf.named_modules() if module is head)
    return f"{name}.weight", weight.detach().contiguous().cpu()
