"""Checks of adapters: that they fit the model, that they learn, and that what is saved is what was trained."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.doctor.context import CheckContext
from evenhand.doctor.registry import Finding, check, fail, info, warn
from evenhand.errors import UserError

if TYPE_CHECKING:
    from evenhand.models.policy import Policy

WORST = 1e-4
"""Nats that a log-prob may change by between training and loading in float32."""
NARROW = 0.1
"""The same where weights have half precision, to which a merged one is rounded."""


@check(
    "M9",
    "adapters fit the model",
    why="a name that means no layer trains less than was meant, or nothing",
    fix="name layers as the model does: `targets: all_linear`, or ends of names such as q_proj",
)
def fitting(patient: CheckContext) -> Iterator[Finding]:
    from evenhand.models.adapters import peft
    from evenhand.plan.parameter_count import adapted_arms, counted, skeleton

    arms = adapted_arms(patient.experiment)
    if not arms:
        return
    try:
        peft()
    except UserError as error:
        yield fail(error.what, why="adapters are its layers", fix=error.fix)
    yield from _rounded(patient)
    network = skeleton(patient.config)
    for name, arm in arms.items():
        try:
            yield info(f"{name}: {counted(network, arm)}")
        except UserError as error:
            yield fail(f"{name}: {error.what}", why=error.why, fix=error.fix)


def _rounded(patient: CheckContext) -> Iterator[Finding]:
    from evenhand.models.load import resolve_device, resolve_dtype

    e = patient.experiment
    dtype = resolve_dtype(e.model.dtype, resolve_device(e.runtime.device))
    if dtype.itemsize < 4:
        yield warn(
            f"merged weights are rounded to {str(dtype).removeprefix('torch.')}, and a small change is lost",
            why="a change below half of a weight's last bit is none; `adapter/` keeps it, the model that is compared does not",
            fix="`model: {dtype: float32, matmul: bfloat16}` where memory allows",
        )  # fmt: skip


@check(
    "M10",
    "adapters learn, and are saved as they were trained",
    why="a frozen adapter, or one that was never merged, leaves a run that looks healthy and a model that is the start",
    fix="report it, with the model's config",
    quick=False,
)
def learning(patient: CheckContext) -> Iterator[Finding]:
    from evenhand.models import adapters
    from evenhand.plan.parameter_count import adapted_arms

    arms = adapted_arms(patient.experiment)
    if not arms:
        return
    rows = patient.short_rows()
    seen = set()
    for name, arm in arms.items():
        adapter = arm.train.adapter
        assert adapter is not None, "only arms that have one are looked at"
        if (key := (adapter, arm.train.gradient_checkpointing)) in seen:
            continue
        seen.add(key)
        policy = copy.deepcopy(patient.policy) if adapter.quantize else patient.policy  # what is packed stays so
        adapters.attach(policy, adapter, seed=0)
        policy.set_checkpointing(arm.train.gradient_checkpointing)
        try:
            yield from _learns(policy, rows, name)
            yield from _survives(policy, rows, name, patient)
        finally:
            policy.set_checkpointing(False)
            adapters.detach(policy)


def _learns(policy: Policy, rows: list[Any], name: str) -> Iterator[Finding]:
    """B begins at zero, so that A has no gradient at first: B must have one."""
    from evenhand.doctor import forward_probe

    try:
        _, found = forward_probe.gradients(policy, [rows])
    except RuntimeError as error:  # torch's, when nothing that learns is reached
        yield fail(f"{name}: no weight gets a gradient ({error})", fix="check `targets` and gradient checkpointing")
        return
    flat = [n for n, p in policy.named_parameters() if p.requires_grad and "lora_A" not in n and not _moves(found.get(n))]
    if flat:
        yield fail(f"{name}: {len(flat)} weights get no gradient", *flat[:3], fix="check `targets` and gradient checkpointing")


def _moves(gradient: Any) -> bool:
    return gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any())


def _survives(policy: Policy, rows: list[Any], name: str, patient: CheckContext) -> Iterator[Finding]:
    """With weights moved off the start: the network as it trains, the merged model loaded again, and the adapter on the start."""
    import torch

    from evenhand.doctor import forward_probe
    from evenhand.models.adapter_models import save_adapted
    from evenhand.models.load import load_policy, save
    from evenhand.seeding import generator

    e, draw = patient.experiment, generator("doctor", "adapter")
    start = forward_probe.logps(policy, rows)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save(policy, patient.renderer.tokenizer, folder / "start")
        with torch.no_grad():
            for p in (p for n, p in policy.named_parameters() if "lora_B" in n):
                p.add_(0.01 * torch.randn(p.shape, generator=draw).to(p))
        trained = forward_probe.logps(policy, rows)
        save(policy, patient.renderer.tokenizer, folder / "model")
        save_adapted(policy, patient.renderer.tokenizer, folder / "adapter", start=folder / "start")
        for kind in ("model", "adapter"):
            again = load_policy(folder / kind, dtype=e.model.dtype, device=e.runtime.device)
            worst = forward_probe.furthest(trained, forward_probe.logps(again, rows))
            allowed = WORST if policy.dtype.itemsize >= 4 else NARROW
            seen = f"{name}: {kind}/ saved and loaded again, log-probs differ by at most {worst:.1e} nats"
            yield (info if worst <= allowed else fail)(seen)
    if all(torch.equal(a, b) for a, b in zip(start, trained, strict=True)):
        yield fail(f"{name}: the adapter changes no log-prob")
