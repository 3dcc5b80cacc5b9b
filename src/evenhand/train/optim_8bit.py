"""AdamW in 4 bytes a weight beside its gradient, where `AdamW` takes 14: moments in eight bits, bfloat16 weights without a copy.

    bytes a bfloat16 weight      weight   master   moments   gradient   in all
    adamw                             2        4         8          2       16
    adamw_8bit                        2        -         2          2        6

Moments are kept as in `core.eight_bit`; of the second its root, whose levels then span fourteen decades of the moment, so that it
is not rounded to nothing where the first is not (a weight with a small gradient would be moved by m / eps). Parameters of fewer
than 4,096 numbers keep moments in float32, as published (arXiv:2110.02861).

Two things are rounded by chance, by numbers keyed by (seed, update, parameter): the second moment, which would else hardly fall
where b2 is near 1, and new bfloat16 weights (`core.stochastic_rounding`), else updates below half their step were lost.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evenhand.core import eight_bit
from evenhand.core.stochastic_rounding import to_bfloat16
from evenhand.errors import UserError
from evenhand.seeding import keyed
from evenhand.train.weights import learning

KNOWN = (torch.float32, torch.bfloat16)
"""Precisions of weights that are moved: float16 is not rounded by chance."""
SMALL = 4096
"""Numbers of a parameter below which its moments stay in float32: norms and biases, which weigh nothing and matter much."""
CHUNK, CHUNK_ON_ACCELERATOR = 2**18, 2**24
"""Numbers that are moved at once, multiples of a block: bounds what is unpacked; on a processor it lies in its cache."""


@dataclass(slots=True)
class Moments:
    """Of one parameter of n numbers: mean gradient `first` and root of the mean square `root`, as codes [n] uint8 with scales
    [blocks(n)], or as they are [n] float32 without; and how many updates are in them."""

    first: Tensor
    root: Tensor
    first_scale: Tensor | None
    root_scale: Tensor | None
    updates: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """By name; scales only where there are some."""
        named = {name: getattr(self, name) for name in self.__slots__}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


class AdamW8bit:
    """AdamW (see `optim.AdamW`, to which it is equal where all parameters are small and in float32) with moments in eight bits.

    m <- b1 m + (1 - b1) g,    v <- b2 v + (1 - b2) g^2,
    w <- round(w (1 - lr decay) - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps))

    UserError for float16 weights, which are not rounded by chance.
    """

    def __init__(
        self, model: nn.Module, *, learning_rate: float, betas: tuple[float, float], eps: float, weight_decay: float, seed: int
    ) -> None:
        self.named = learning(model)
        if wrong := [name for name, p in self.named.items() if p.dtype not in KNOWN]:
            raise UserError(
                f"weights in {str(self.named[wrong[0]].dtype).removeprefix('torch.')} ({wrong[0]}) are not rounded by chance",
                where="train.optimizer", fix="set `model.dtype` to bfloat16 or float32, or `train.optimizer` to adamw",
            )  # fmt: skip
        self.learning_rate, self.seed = learning_rate, seed
        self._betas, self._eps, self._decay = betas, eps, weight_decay
        self._moments: dict[str, Moments] = {}
        self._moved = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One update at `learning_rate * factor`, from the gradients on the model's parameters, which are then cleared."""
        for name, p in self.named.items():
            if p.grad is not None:
                self._move(name, p, p.grad.reshape(-1), self.learning_rate * factor)
                p.grad = None
        self._moved += 1

    def _move(self, name: str, p: nn.Parameter, gradient: Tensor, rate: float) -> None:
        moments = self._moments.setdefault(name, _nothing(p))
        moments.updates += 1
        draw = torch.Generator(p.device).manual_seed(keyed(self.seed, "rounding", int(self._moved), name))
        flat = p.data.reshape(-1)
        chunk = CHUNK if p.device.type == "cpu" else CHUNK_ON_ACCELERATOR
        for start in range(0, len(flat), chunk):
            part = slice(start, start + chunk)
            moved = self._moved_part(flat[part].float(), gradient[part].float(), moments, part, rate, draw)
            flat[part] = to_bfloat16(moved, draw) if p.dtype == torch.bfloat16 else moved
        if not p.is_contiguous():  # `flat` is a copy
            p.data.copy_(flat.view_as(p))

    def _moved_part(
        self, weights: Tensor, gradient: Tensor, moments: Moments, part: slice, rate: float, draw: torch.Generator
    ) -> Tensor:
        (b1, b2), updates = self._betas, int(moments.updates)
        first = _read(moments.first, moments.first_scale, part, signed=True).lerp_(gradient, 1 - b1)
        root = _read(moments.root, moments.root_scale, part, signed=False)
        root = root.square_().mul_(b2).addcmul_(gradient, gradient, value=1 - b2).sqrt_()
        if moments.first_scale is None or moments.root_scale is None:
            moments.first[part], moments.root[part] = first, root
        else:
            of_blocks = _of_blocks(part)
            moments.first[part], moments.first_scale[of_blocks] = eight_bit.quantise(first)
            moments.root[part], moments.root_scale[of_blocks] = eight_bit.quantise_roots(root, draw)
        below = root.div_((1 - b2**updates) ** 0.5).add_(self._eps)
        return weights.mul_(1 - rate * self._decay).addcdiv_(first, below, value=-rate / (1 - b1**updates))

    def restart(self) -> None:
        """Forget every moment: as if made anew."""
        self._moments.clear()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that must survive a kill, as named tensors."""
        held = {f"{kind}.{name}": t for name, moments in self._moments.items() for kind, t in moments.tensors().items()}
        return {"moved": self._moved, **held}

    def places(self, names: Collection[str]) -> dict[str, Tensor]:
        """Where the tensors of these names go, as `tensors` named them: to be filled in place."""
        for name, p in self.named.items():
            if f"updates.{name}" in names:
                self._moments[name] = _nothing(p)
        return self.tensors()


def _nothing(p: nn.Parameter) -> Moments:
    """Before the first update."""
    count, updates = p.numel(), torch.zeros((), dtype=torch.int64)
    if count < SMALL:
        first, root = (torch.zeros(count, device=p.device) for _ in range(2))
        return Moments(first=first, root=root, first_scale=None, root_scale=None, updates=updates)
    first, root = (torch.zeros(count, dtype=torch.uint8, device=p.device) for _ in range(2))
    scales = [torch.zeros(eight_bit.blocks(count), device=p.device) for _ in range(2)]
    return Moments(first=first, root=root, first_scale=scales[0], root_scale=scales[1], updates=updates)


def _read(kept: Tensor, scale: Tensor | None, part: slice, *, signed: bool) -> Tensor:
    if scale is None:
        return kept[part].clone()
    return eight_bit.dequantise(kept[part], scale[_of_blocks(part)], signed=signed)


def _of_blocks(part: slice) -> slice:
    """The blocks of a chunk's numbers; the last of a parameter may not be full."""
    return slice(part.start // eight_bit.BLOCK, part.stop // eight_bit.BLOCK)
