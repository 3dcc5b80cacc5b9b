"""Two ranks against one process: a step of a method, three times."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from evenhand.methods import Method
from evenhand.models.adapters import Adapter, attach
from evenhand.models.backbone import Trunk
from evenhand.models.sharding import full
from evenhand.runner.process import Setting
from evenhand.runner.ranks import started
from evenhand.stages.setup import Compute
from evenhand.train import loop
from evenhand.train.examples import Example, micro_batches
from evenhand.train.optim import AdamW, clip_gradients
from evenhand.train.ranks import ONE, Ranks
from tests.battery import variants
from tests.battery.world import items_for, network

Figures = dict[str, float]
"""The largest difference from one process, by what was compared."""


def on_ranks(work: Callable[..., None], size: int, tmp: Path, *, shard: str = "ddp") -> None:
    """`work(ranks, scratch, report)` on processes of their own."""
    compute = Compute(device="cpu", dtype="float32", world_size=size, shard=shard)
    started(work, compute, Setting(store=tmp, stages="evenhand.stages", threads=1, log=tmp / "ranks.log"), lambda *_, **__: None)


def compared(cases: Mapping[str, Mapping[str, Any]], tmp: Path, *, shard: str) -> dict[str, Figures]:
    """The figures of every case, by one start of two ranks: arguments of `compare`, by a name of the case's own."""
    on_ranks(partial(_compare_all, cases, tmp / "figures.json"), 2, tmp, shard=shard)
    return json.loads((tmp / "figures.json").read_text())


def _compare_all(cases: Mapping[str, Mapping[str, Any]], out: Path, ranks: Ranks, scratch: Path, report: Any) -> None:
    found = {case: compare(ranks=ranks, **named) for case, named in cases.items()}
    if ranks.first:
        out.write_text(json.dumps(found))


def compare(name: str, ranks: Ranks, *, prompts: int = 5, dtype: str = "float64", adapter: bool = False) -> Figures:
    """Three steps of a method on all ranks, beside the same three in this process alone."""
    method = variants.build(name, steps=6, max_tokens=8)
    items = items_for(method, prompts=prompts)
    alone, shared = (made(method, dtype, adapter) for _ in range(2))
    ranks.placed(shared)
    one, many = Steps(alone, method, items, ONE), Steps(shared, method, items, ranks)
    before = {n: p.detach().clone() for n, p in alone.named_parameters()}
    found: Figures = {"fp32_heads": float(method.network != "policy")}
    for _ in range(3):
        a, b = one.gradients(), many.gradients()
        assert a.keys() == b.keys(), "metrics by name"
        _worst(found, "metrics", max(abs(a[k] - b[k]) / max(1e-3, abs(a[k])) for k in a))
        _worst(found, "gradient", _difference(one.grads(), many.grads()))
        one.optimizer.step(1.0)
        many.optimizer.step(1.0)
        _worst(found, "weights", _difference(one.weights(), many.weights()))
    found["moved"] = _difference(before, many.weights())
    return found


def made(method: Method, dtype: str, adapter: bool) -> Trunk:
    model = network(method)
    if dtype != "float64":
        heads = {n: p.dtype for n, p in model.named_parameters() if n.startswith("value_head")}
        model = model.to(getattr(torch, dtype))
        for name in heads:
            module, _, leaf = name.rpartition(".")
            parameter = getattr(model.get_submodule(module), leaf)
            parameter.data = parameter.data.float()
    if adapter:
        attach(model, Adapter(rank=2), seed=0)
    return model


class Steps:
    """A network on its way, on some ranks."""

    def __init__(self, model: Trunk, method: Method, items: Sequence[Example], ranks: Ranks) -> None:
        self.model, self.objective, self.ranks = model, method.objective, ranks
        self.batches = micro_batches(items, 40, ranks.size)
        self.memory: dict[str, torch.Tensor] = {}
        self.optimizer = AdamW(model, learning_rate=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)

    def gradients(self) -> dict[str, float]:
        loss, metrics = loop.accumulate(self.model, self.objective, self.batches, 1.0, self.memory, self.ranks)
        norm = clip_gradients(self.model.parameters(), 1.0)
        return loop.to_floats({"loss": loss, "grad_norm": norm} | loop.means(metrics))

    def grads(self) -> dict[str, torch.Tensor]:
        return {n: full(p.grad) for n, p in self.model.named_parameters() if p.grad is not None}

    def weights(self) -> dict[str, torch.Tensor]:
        return {n: full(p.detach()) for n, p in self.model.named_parameters()}


def _difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest, of tensors that both have; one that a single side has must be zero."""
    for name in a.keys() ^ b.keys():
        assert float((a | b)[name].abs().max()) == 0.0, f"{name} has a gradient on one side only"
    return max((float((a[n].double() - b[n].double()).abs().max()) for n in a.keys() & b.keys()), default=0.0)


def _worst(found: Figures, name: str, value: float) -> None:
    found[name] = max(found.get(name, 0.0), value)
