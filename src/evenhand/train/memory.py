"""Running out of memory: told from other errors, and said with what would fit."""

from __future__ import annotations

import gc

import torch

from evenhand.errors import UserError
from evenhand.models.backbone import Trunk
from evenhand.train.config import Train
from evenhand.train.optim_8bit import KNOWN
from evenhand.train.optimizers import state_bytes

_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "alloc failed")
GIB = 2**30


def ran_out(error: BaseException) -> bool:
    """Whether an error means that memory did not suffice, of an accelerator or of the machine.

    >>> ran_out(RuntimeError("CUDA error: out of memory")), ran_out(MemoryError()), ran_out(ValueError("bad shape"))
    (True, True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)


def release() -> None:
    """Give back what a failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class StepTooLarge(UserError):
    """A micro-batch did not fit; `smaller` is the size of micro-batches to try next, None where none is or none was asked for."""

    smaller: int | None = None


def step_too_large(train: Train, model: Trunk, longest: int, *, where: str) -> StepTooLarge:
    """A step that did not fit, and what makes it smaller; `longest` is its longest row with its prompt, in tokens."""
    total, held = _memory(model.device), _held(model, train)
    room = f" of {total / GIB:.1f} GiB" if total else ""
    what = f"a micro-batch of up to {max(train.tokens_per_microbatch, longest)} tokens does not fit into the memory{room}"
    why = f"weights, gradients and the optimizer hold {held / GIB:.1f} GiB; the longest row has {longest} tokens"
    crowded = bool(total) and held > 0.8 * total
    error = StepTooLarge(what, where=where, why=why, fix=_fix(train, longest, crowded=crowded, can_pack=_can_pack(model, train)))
    error.smaller = smaller(train, longest) if train.on_memory == "smaller" else None
    return error


def smaller(train: Train, longest: int) -> int | None:
    """The next smaller `tokens_per_microbatch`; None where one row by itself is as large."""
    half = train.tokens_per_microbatch // 2
    return half if half >= max(1, longest // 2) and train.tokens_per_microbatch > longest else None


def _can_pack(model: Trunk, train: Train) -> bool:
    """Whether moments in eight bits would be taken, and be less: of all weights, whole on each rank, in a precision they know."""
    learns = [p for p in model.parameters() if p.requires_grad]
    known = all(p.dtype in KNOWN and not hasattr(p, "full_tensor") for p in learns)
    return train.optimizer == "adamw" and train.adapter is None and known


def _fix(train: Train, longest: int, *, crowded: bool, can_pack: bool) -> str:
    half = smaller(train, longest)
    ways = []
    if half is not None and not crowded:
        ways.append(f"train.tokens_per_microbatch={half} (the same result; `on_memory: smaller` finds it by itself)")
    if not train.gradient_checkpointing and not crowded:
        ways.append("train.gradient_checkpointing=true (the same result, a third slower)")
    if crowded and can_pack:
        ways.append("train.optimizer=adamw_8bit (moments in two bytes a weight)")
    if train.adapter is None:
        ways.append("`train: {adapter: {rank: 16}}` (no gradients and moments of the weights)")
    ways += ["shorter `lengths`", "fewer --workers"]
    return "; else ".join(ways[:3])


def _held(model: Trunk, train: Train) -> int:
    """Bytes of weights, of gradients, and of what the optimizer keeps."""
    every = sum(p.numel() * p.element_size() for p in model.parameters())
    learns = [p for p in model.parameters() if p.requires_grad]
    return every + round(
        sum(p.numel() * (p.element_size() + sum(state_bytes(train.optimizer, p.element_size()))) for p in learns)
    )


def _memory(device: torch.device | str) -> int:
    """Bytes of the accelerator's memory; 0 for the processor, whose other programs have a say."""
    kind = torch.device(device)
    return torch.cuda.get_device_properties(kind).total_memory if kind.type == "cuda" else 0
