"""Several processes that train one network: replicated weights (ddp), or weights spread over them (fsdp)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, is_dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from typing_extensions import override

from evenhand.models import sharding
from evenhand.models.backbone import Trunk
from evenhand.models.layer_turns import shards
from evenhand.models.spread_load import layers_in_files
from evenhand.train import heap, sharded_files
from evenhand.train.ranks import Ranks, RankTurn, dealt

if TYPE_CHECKING:
    from torch.nn import Module

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)
BUCKET = 64 << 20
"""Bytes of gradients that travel at once."""
PATIENCE = timedelta(days=7)
"""How long a rank waits for the others, which may have long work of their own. Who supervises them sees a death at once."""


def joined(meeting: Path, rank: int, size: int, *, shard: str, device: str) -> Ranks:
    """This process as `rank` of `size`; all meet in the file `meeting`, which must not exist before."""
    where = f"file://{meeting.absolute()}"
    dist.init_process_group(backend(device), init_method=where, rank=rank, world_size=size, timeout=PATIENCE)
    return of_group(shard, device)


def backend(device: str) -> str:
    """What carries tensors: processors' by gloo, CUDA's by nccl."""
    return "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"


def of_group(shard: str, device: str) -> Ranks:
    """The ranks of the process group that this process has joined; on CUDA each has the device of its place on the machine."""
    if device.startswith("cuda"):
        torch.cuda.set_device(dist.get_node_local_rank(fallback_rank=dist.get_rank()))
    return {"ddp": Replicated, "fsdp": Sharded}[shard](dist.get_rank(), dist.get_world_size(), device)


class Replicated(Ranks):
    """Every rank has all weights and moves them alike; gradients are summed once a step."""

    def __init__(self, rank: int, size: int, device: str) -> None:
        self.rank, self.size, self.device = rank, size, torch.device(device).type

    @override
    def turns(self, sizes: Sequence[int]) -> list[RankTurn]:
        return [RankTurn(index) for index in dealt(sizes, self.size)[self.rank]]

    @override
    def everyone(self, mine: T) -> list[T]:
        """Tensors travel through the processors, and arrive on this rank's own device."""
        parts: list[T] = [mine] * self.size
        dist.all_gather_object(parts, moved(mine, "cpu"))
        return [moved(part, self.device) for part in parts]

    @override
    def told(self, say: Callable[[], T]) -> T:
        said = [say() if self.first else None]
        dist.broadcast_object_list(said, src=0)
        return said[0]  # type: ignore[return-value]

    @override
    def sum_gradients(self, model: Module) -> None:
        """A parameter that has a gradient on some rank has one on all: where a rank had no row for it, zeros."""
        learns = [p for p in model.parameters() if p.requires_grad]
        some = torch.tensor([p.grad is not None for p in learns], dtype=torch.uint8, device=self.device)
        dist.all_reduce(some, op=dist.ReduceOp.MAX)
        for parameter, has in zip(learns, some.tolist(), strict=True):
            if has and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in buckets(p.grad for p in learns if p.grad is not None):
            flat = torch.cat([g.flatten() for g in bucket])
            dist.all_reduce(flat)
            for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))

    @override
    def write(self, tensors: Mapping[str, Tensor], place: Path) -> None:
        if self.first:
            super().write(tensors, place)


class Sharded(Replicated):
    """Every weight, its gradient and its moments are spread over the ranks (FSDP2), gathered layer by layer where they are used.

    All ranks run equally many passes, since each pass gathers weights from all.
    """

    @property
    @override
    def saves(self) -> bool:
        return True

    @override
    def opening(self) -> AbstractContextManager[None]:
        return layers_in_files()

    @override
    def placed(self, model: M) -> M:
        from torch.distributed.device_mesh import init_device_mesh

        assert isinstance(model, Trunk)
        sharding.fully_shard(model, init_device_mesh(self.device, (self.size,)))
        with heap.given_back_after(shards(model)):
            sharding.settle(model)
        return model

    @override
    def turns(self, sizes: Sequence[int]) -> list[RankTurn]:
        mine = super().turns(sizes)
        smallest = min(range(len(sizes)), key=sizes.__getitem__, default=0)
        return mine + [RankTurn(smallest, 0.0)] * (-(-len(sizes) // self.size) - len(mine))

    @override
    def before_backward(self, model: Module, last: bool) -> None:
        model.set_requires_gradient_sync(last)  # type: ignore[operator]

    @override
    def sum_gradients(self, model: Module) -> None:
        """Done by the last backward pass."""

    @override
    def whole(self, model: Module) -> AbstractContextManager[None]:
        return sharding.whole(model)

    @override
    def write(self, tensors: Mapping[str, Tensor], place: Path) -> None:
        """What is spread is written by those that hold it, each its part: no rank ever has all of it."""
        spread = {name: tensor for name, tensor in tensors.items() if hasattr(tensor, "full_tensor")}
        super().write({name: tensor for name, tensor in tensors.items() if name not in spread}, place)
        if spread:
            sharded_files.write(place, spread)


def moved(value: Any, device: str) -> Any:
    """The value with every tensor in it on `device`: inside dictionaries, sequences and records too."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: moved(item, device) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(moved(item, device) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        tensors = {f.name: item for f in fields(value) if isinstance(item := getattr(value, f.name), Tensor)}
        return replace(value, **{name: item.to(device) for name, item in tensors.items()}) if tensors else value
    return value


def buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one precision, about BUCKET bytes together, in order."""
    bucket: list[Tensor] = []
    held = 0
    for gradient in gradients:
        if bucket and (bucket[0].dtype != gradient.dtype or held + gradient.nbytes > BUCKET):
            yield bucket
            bucket, held = [], 0
        bucket.append(gradient)
        held += gradient.nbytes
    if bucket:
        yield bucket


def left() -> None:
    """This process leaves its group."""
    if dist.is_initialized():
        dist.destroy_process_group()
