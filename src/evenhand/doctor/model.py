"""Checks of the starting model: its first loss, its gradients, its precision, and that saving it changes nothing."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.doctor.context import CheckContext
from evenhand.doctor.examine import from_error
from evenhand.doctor.opened import Unavailable
from evenhand.doctor.registry import Finding, check, fail, info, warn

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
    from evenhand.doctor import forward_probe

    named = {n: a for n, a in patient.arms.items() if a.method in FIRST_LOSS}
    if not named or not patient.rows(pairs=True):
        raise Unavailable("no arm has a first loss that is known beforehand")
    batch = forward_probe.pair_batch(patient.policy, patient.short_rows(pairs=True))
    for name, arm in named.items():
        found = forward_probe.first_loss(patient.policy, patient.methods[name].objective, batch)
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
    from evenhand.doctor import forward_probe

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
    import torch

    from evenhand.models.load import resolve_device, resolve_dtype

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
    from evenhand.doctor import forward_probe

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
    from evenhand.doctor import forward_probe
    from evenhand.models.load import load_policy, save

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
    from evenhand.doctor import forward_probe

    rows = patient.short_rows()
    loss, whole = forward_probe.gradients(patient.policy, [rows])
    other, parts = forward_probe.gradients(patient.policy, [[r] for r in rows])
    gaps = [forward_probe.relative(parts[n], g) for n, g in whole.items() if g.any()]
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
    from evenhand.doctor import forward_probe

    together = patient.short_logps
    alone = [row for part in forward_probe.alone(patient.short_rows()) for row in forward_probe.logps(patient.policy, part)]
    worst = forward_probe.furthest(together, alone)
    good = worst < (0.1 if patient.policy.dtype.itemsize < 4 else 1e-3)
    yield (info if good else fail)(f"log-probs differ by at most {worst:.1e} nats")
