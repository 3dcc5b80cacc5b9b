"""Checkpoints that make a killed run end with the bytes of an uninterrupted one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from evenhand.train.optim import AdamW

FOLDER = "checkpoint"


def save(
    out: Path,
    *,
    step: int,
    model: nn.Module,
    optimizer: AdamW,
    state: Mapping[str, Any],
    more: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> None:
    """Write the checkpoint of `step` beside the last one, then replace it by rename; a kill leaves one of the two whole.

    `more` are named sets of tensors beside the model's and the optimizer's: see `tensors`.
    """
    new = out / f"{FOLDER}-{step:08d}"
    partial = out / f"{FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _save_tensors({f"model.{n}": t for n, t in trained(model).items()}, partial / "model.safetensors")
    _save_tensors(optimizer.tensors(), partial / "optimizer.safetensors")
    for name, tensors_of in (more or {}).items():
        _save_tensors(tensors_of, partial / f"{name}.safetensors")
    _write(partial / "state.json", json.dumps({"step": step, **state}))
    partial.rename(new)
    for old in out.glob(f"{FOLDER}-*"):
        if old != new:
            shutil.rmtree(old)


def trained(model: nn.Module) -> dict[str, Tensor]:
    """The weights that training moves, by name; not copies."""
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


def tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The set of tensors that was saved as `more[name]`; empty where there was none."""
    path = folder / f"{name}.safetensors"
    return load_file(path) if path.exists() else {}


def latest(out: Path) -> Path | None:
    """The newest whole checkpoint in a stage's folder."""
    return max(out.glob(f"{FOLDER}-*"), default=None)


def load(folder: Path, *, model: nn.Module, optimizer: AdamW) -> dict[str, Any]:
    """Restore model and optimizer in place; returns the saved state (with its `step`)."""
    weights = load_file(folder / "model.safetensors")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(weights[f"model.{name}"])
    optimizer.load_tensors(load_file(folder / "optimizer.safetensors"))
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))


def remove(out: Path) -> None:
    """Drop the checkpoints of a finished stage."""
    for folder in out.glob(f"{FOLDER}*"):
        shutil.rmtree(folder)


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, path)
    with open(path, "rb") as f:
        os.fsync(f.fileno())


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())


class Log:
    """An append-only JSON-lines file that a resumed run cuts back to its checkpoint's step."""

    def __init__(self, path: Path, *, resume_step: int) -> None:
        self.path = path
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").split("\n"):  # splitlines would also cut at U+2028 in a sample
                row = _whole(line)
                if row is None or row["step"] > resume_step:
                    break
                kept.append(line)
        partial = path.with_name(f"{path.name}.partial")  # a kill while it is cut must not cost the rows that stay
        _write(partial, "".join(line + "\n" for line in kept))
        partial.replace(path)

    def append(self, row: Mapping[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


def _whole(line: str) -> dict | None:
    """A parsed line, or None for one that a kill cut short."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
