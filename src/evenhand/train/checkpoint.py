"""Checkpoints that make a killed run end with the bytes of an uninterrupted one.

A checkpoint carries the digests of its files and of what the logs held at its step. One that is damaged, or whose logs are, is
dropped with a note: training goes on from the one before, or from its beginning, and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from evenhand.store import digests
from evenhand.store.store import flush
from evenhand.store.whole import whole
from evenhand.train import tensor_files
from evenhand.train.optimizers import Optimizer
from evenhand.train.ranks import ONE, Ranks
from evenhand.train.weights import spread

FOLDER = "checkpoint"
LOGS = "logs.json"
"""What the logs beside the checkpoint held at its step, and what snapshots were there: file -> (bytes, digest)."""
_log = logging.getLogger(__name__)


def save(
    out: Path,
    *,
    step: int,
    model: nn.Module,
    optimizer: Optimizer,
    state: Mapping[str, Any],
    more: Mapping[str, Mapping[str, Tensor]] | None = None,
    ranks: Ranks = ONE,
) -> None:
    """Write the checkpoint of `step` beside the last one, then replace it by rename; a kill leaves one of the two whole.

    `more` are named sets of tensors beside the model's and the optimizer's: see `tensors`. Of several `ranks` the first writes,
    and of tensors that are spread over them each writes its part, into the first one's `out`; any number can go on from it.
    """
    model_tensors = {f"model.{n}": t for n, t in trained(model).items()}
    sets = {"model": model_tensors, "optimizer": optimizer.tensors(), **(more or {})}
    partial = Path(ranks.told(lambda: str(_begun(out))))
    for name, tensors_of in sets.items():
        ranks.write(tensors_of, partial / name)
    if not ranks.first:
        return
    new = out / f"{FOLDER}-{step:08d}"
    _write(partial / "state.json", json.dumps({"step": step, **state}))
    stay = sorted([*out.glob("*.jsonl"), *out.glob(f"*/*/{digests.NAME}")])
    _write(partial / LOGS, json.dumps({path.relative_to(out).as_posix(): _mark(path) for path in stay}))
    digests.seal(partial)
    flush(partial / digests.NAME)
    partial.rename(new)
    for old in out.glob(f"{FOLDER}-*"):
        if old != new:
            shutil.rmtree(old)


def _begun(out: Path) -> Path:
    """An empty folder for a new checkpoint; what a kill has left there makes room."""
    partial = out.resolve() / f"{FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def trained(model: nn.Module) -> dict[str, Tensor]:
    """The weights that training moves, by name; not copies."""
    return {n: p.detach() for n, p in spread(model).named_parameters() if p.requires_grad}


def tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The set of tensors that was saved as `more[name]`; empty where there was none."""
    path = folder / f"{name}.safetensors"
    return load_file(path) if path.exists() else {}


def latest(out: Path) -> Path | None:
    """The newest sound checkpoint in a stage's folder; damaged ones are removed, and said.

    The logs are cut to what they held at its step: no digest says whether the lines after it are those that were written.
    """
    for folder in sorted(out.glob(f"{FOLDER}-*"), reverse=True):
        if not (why := damage(folder)):
            for name, (size, _) in _marks(folder).items():
                if size >= 0:
                    os.truncate(out / name, size)
            return folder
        _log.warning(
            "%s is damaged (%s): it is dropped; training goes on from the checkpoint before, or from its beginning",
            folder.name,
            why,
        )
        shutil.rmtree(folder)
    return None


def damage(folder: Path) -> str:
    """What is wrong with a checkpoint, or with the logs and snapshots that it goes on from, in words; empty where nothing is."""
    if why := digests.damage(folder):
        return why
    if json.loads((folder / "state.json").read_text(encoding="utf-8"))["step"] != int(folder.name.removeprefix(f"{FOLDER}-")):
        return "it is not of the step in its name"
    for name, mark in _marks(folder).items():
        path = folder.parent / name
        if _mark(path, mark[0]) != mark:
            return f"{name} is not what it was at that step"
        if path.name == digests.NAME and (why := digests.damage(path.parent)):
            return why
    return ""


def load(folder: Path, *, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Restore model and optimizer in place; returns the saved state (with its `step`)."""
    tensor_files.read(folder / "model", {f"model.{name}": tensor for name, tensor in trained(model).items()})
    tensor_files.read(folder / "optimizer", optimizer.places(tensor_files.names(folder / "optimizer")))
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))


def remove(out: Path) -> None:
    """Drop the checkpoints of a finished stage."""
    for folder in out.glob(f"{FOLDER}*"):
        shutil.rmtree(folder)


def _marks(folder: Path) -> dict[str, list[Any]]:
    return json.loads((folder / LOGS).read_text(encoding="utf-8"))


def _mark(log: Path, size: int | None = None) -> list[int | str]:
    """[bytes, digest] of a log, or of its first `size` bytes, after it has reached the disk."""
    if not log.exists():
        return [-1, ""]
    flush(log)
    with open(log, "rb") as file:
        data = file.read() if size is None else file.read(size)
    return [len(data), hashlib.blake2b(data, digest_size=16).hexdigest()]


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
        for line in path.read_bytes().split(b"\n") if path.exists() else ():  # splitlines would also cut at U+2028 in a sample
            step = _step(line)
            if step is None or step > resume_step:
                break
            kept.append(line.decode())
        with whole(path) as partial:  # a kill while it is cut must not cost the rows that stay
            _write(partial, "".join(line + "\n" for line in kept))

    def append(self, row: Mapping[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


def _step(line: bytes) -> int | None:
    """The step of a line, or None for one that a kill cut short, in the middle of a character perhaps."""
    try:
        return json.loads(line)["step"]
    except (ValueError, LookupError, TypeError):
        return None
