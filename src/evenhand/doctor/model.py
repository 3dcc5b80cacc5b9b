"""Checks of the starting model and of adapters: first loss, gradients, precision, and that saving changes nothing."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evenhand.doctor import forward_probe
from evenhand.doctor.context import CheckContext
from evenhand.doctor.examine import from_error
from evenhand.doctor.opened import Unavailable
from evenhand.doctor.registry import Finding, check, fail, info, warn
from evenhand.errors import UserError
from evenhand.models import adapters
from evenhand.models.adapter_models import save_adapted
from evenhand.models.adapters import peft
from evenhand.models.load import load_policy, resolve_device, resolve_dtype, save
from evenhand.models.policy import Policy
from evenhand.plan.parameter_count import adapted_arms, counted, skeleton
from evenhand.seeding import generator
from evenhand.train import loop

FIRST_LOSS: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "dpo": lambda p: math.log(2),
    "cdpo": lambda p: math.log(2),
    "robust_dpo": lambda p: math.log(2),
    "ipo": lambda p: (1 / (2 * p["tau"])) ** 2,
    "rso_hinge": lambda p: 1.0,
}
"""The loss of a policy that is its own reference; its margins are all 0."""


@check(
    "M1",
    "a method begins where it must",
    why="at the first step the policy is its own reference: any other loss means a wrong reference, sign or mask",
    fix="check `initial_policy:` of the arm; report it if the start is right",
    quick=False,
)
def first_loss(patient: CheckContext) -> Iterator[Finding]:
    named = {n: a for n, a in patient.arms.items() if a.method in FIRST_LOSS}
    if not named or not patient.rows(pairs=True):
        raise Unavailable("no arm has a first loss that is known beforehand")
    batch = forward_probe.pair_batch(patient.policy, patient.short_rows(pairs=True))
    for name, arm in named.items():
        found = loop.evaluate(patient.policy, patient.methods[name].objective, [batch])
        expected = FIRST_LOSS[arm.method](arm.parameters)
        if not abs(found["loss"] - expected) <= 1e-3 * max(1.0, expected):
            yield fail(f"{name}: the first loss is {found['loss']:.4f}, it must be {expected:.4f}")
        else:
            yield info(f"{name}: the first loss is {found['loss']:.4f}, as it must be")


@check(
    "M2",
    "every weight gets a gradient",
    why="weights that are frozen by accident leave a run that is flat, with a plausible loss",
    fix="check which parts are frozen, and gradient checkpointing",
    quick=False,
)
def gradients(patient: CheckContext) -> Iterator[Finding]:
    rows = patient.short_rows()
    loss, found = forward_probe.gradients(patient.policy, [rows])
    if not math.isfinite(loss):
        yield fail(f"the loss of the first batch is {loss}")
    trainable = [n for n, p in patient.policy.named_parameters() if p.requires_grad]
    if not trainable:
        yield fail("no weight is trainable")
    missing = [n for n in trainable if n not in found or not found[n].any()]
    if missing:
        yield fail(f"{len(missing)} of {len(trainable)} weights get no gradient", *missing[:3])
    broken = [n for n, g in found.items() if not g.isfinite().all()]
    if broken:
        yield fail(f"{len(broken)} weights get a gradient that is not finite", *broken[:3])


@check(
    "M3",
    "the precision is one that trains",
    why="float16 without loss scaling loses small gradients; a precision that the device lacks is emulated, slowly",
    fix="`model.dtype: auto`",
)
def precision(patient: CheckContext) -> Iterator[Finding]:
    device = resolve_device(patient.experiment.runtime.device)
    dtype = resolve_dtype(patient.experiment.model.dtype, device)
    if dtype is torch.float16:
        yield warn("`model.dtype` is float16, whose small gradients vanish")
    if dtype is torch.bfloat16 and device.startswith("cuda") and not torch.cuda.is_bf16_supported():
        yield fail("this device has no bfloat16", fix="`model.dtype: float32`")


@check(
    "M4",
    "log-probs do not depend on chance",
    why="with dropout in the pass that scores, ratios and references are noise",
    fix="set the dropout of the model's config to 0",
    quick=False,
)
def deterministic(patient: CheckContext) -> Iterator[Finding]:
    rows = patient.short_rows()
    was = patient.policy.training
    patient.policy.train()
    first, second = forward_probe.logps(patient.policy, rows), forward_probe.logps(patient.policy, rows)
    patient.policy.train(was)
    worst = forward_probe.furthest(first, second)
    if not worst <= 1e-6:
        yield warn(
            f"two training passes over the same rows differ by {worst:.3g} nats: dropout is active", fix="set dropout to 0"
        )


@check(
    "M5",
    "saving and loading changes nothing",
    why="a model that is another one once it is loaded cannot be compared with anything",
    fix="report it, with the model's config",
    quick=False,
)
def reload(patient: CheckContext) -> Iterator[Finding]:
    rows, e = patient.short_rows(), patient.experiment
    before = patient.short_logps
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model"
        save(patient.policy, patient.renderer.tokenizer, target)
        again = load_policy(target, dtype=e.model.dtype, device=e.runtime.device)
    worst = forward_probe.furthest(before, forward_probe.logps(again, rows))
    yield (info if worst <= 1e-4 else fail)(f"saved and loaded again, log-probs differ by at most {worst:.1e} nats")


@check(
    "M6",
    "the model is all there",
    why="a weight that is missing is drawn at random, and the model only looks weak",
    fix="point `model.path` to a folder written by save_pretrained",
)
def complete(patient: CheckContext) -> Iterator[Finding]:
    if patient.experiment.model.path is None:
        return
    if (unread := CheckContext.config.error(patient)) is not None:
        yield from_error(unread)
        return
    if isinstance(patient.folder, Path) and not list(patient.folder.glob("*.safetensors")):
        yield fail(f"{patient.folder.name} has no *.safetensors file", fix="convert pickled weights where they come from")
    named = getattr(patient.config, "architectures", None) or ()
    if named and not any("CausalLM" in a or "LMHead" in a or "ConditionalGeneration" in a for a in named):
        yield fail(f"the model is a {', '.join(named)}, not a causal language model")
    if not patient.quick and (unopened := CheckContext.policy.error(patient)) is not None:
        yield from_error(unopened)


@check(
    "M7",
    "a step does not depend on how it is cut",
    why="where it does, the effective learning rate changes with the number of micro-batches, and nothing shows it",
    fix="report it, with the model's config",
    quick=False,
)
def accumulation(patient: CheckContext) -> Iterator[Finding]:
    rows = patient.short_rows()
    loss, whole = forward_probe.gradients(patient.policy, [rows])
    other, parts = forward_probe.gradients(patient.policy, [[r] for r in rows])
    gaps = [float((parts[n] - g).norm() / g.norm().clamp(min=1e-30)) for n, g in whole.items() if g.any()]
    if not gaps:
        raise Unavailable("no weight gets a gradient")
    worst = float(np.max(gaps))  # a NaN is the worst
    good = worst < 1e-2 if patient.policy.dtype.itemsize < 4 else worst < 1e-3
    seen = f"one micro-batch or {len(rows)}: loss {loss:.5f} and {other:.5f}, gradients differ by {worst:.1e} relatively"
    yield (info if good else fail)(seen)


@check(
    "M8",
    "a row alone is the row in a batch",
    why="where packing or padding leaks, every log-prob depends on what else is in the batch",
    fix="report it, with the model's config",
    quick=False,
)
def packing(patient: CheckContext) -> Iterator[Finding]:
    together = patient.short_logps
    single = [[replace(row, completions=(c,))] for row in patient.short_rows() for c in row.completions]
    alone = [logp for part in single for logp in forward_probe.logps(patient.policy, part)]
    worst = forward_probe.furthest(together, alone)
    good = worst < (0.1 if patient.policy.dtype.itemsize < 4 else 1e-3)
    yield (info if good else fail)(f"log-probs differ by at most {worst:.1e} nats")


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
    try:
        _, found = forward_probe.gradients(policy, [rows])
    except RuntimeError as error:  # torch's, when nothing that learns is reached
        yield fail(f"{name}: no weight gets a gradient ({error})", fix="check `targets` and gradient checkpointing")
        return
    moving = {name for name, gradient in found.items() if gradient.isfinite().all() and gradient.any()}
    flat = [n for n, p in policy.named_parameters() if p.requires_grad and "lora_A" not in n and n not in moving]
    if flat:
        yield fail(f"{name}: {len(flat)} weights get no gradient", *flat[:3], fix="check `targets` and gradient checkpointing")


def _survives(policy: Policy, rows: list[Any], name: str, patient: CheckContext) -> Iterator[Finding]:
    """With weights moved off the start: the network as it trains, the merged model loaded again, and the adapter on the start."""
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
