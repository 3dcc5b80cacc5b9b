"""A model that an artifact stands for and does not hold: its folder, and what lay there when the artifact was made.

Names in other artifacts lead from one artifact to another (`../../KEY/model`), never to a folder of the machine, so that a run
directory can be moved; a pointer is the one file that names one, since it is about that folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from evenhand.store.fingerprint import MODEL_FILES, content_digest, digest, matching
from evenhand.store.whole import write_whole

POINTER = "model.json"
"""{"path": folder, "files": {name: [bytes, digest]}}; older ones have the path alone."""
MODEL = "model"
_UP = "../../"


def point(artifact: Path, folder: Path) -> str:
    """Lets `artifact` stand for the model in `folder`; returns its `model_fingerprint` as its bytes are now."""
    names = matching(folder, MODEL_FILES)
    files = {name: [(folder / name).stat().st_size, content_digest(folder / name)] for name in names}
    told = {"path": str(folder.resolve()), "files": files}
    write_whole(artifact / POINTER, json.dumps(told, indent=1, sort_keys=True) + "\n")
    return digest([[name, files[name][1]] for name in names])


def model_path(artifact: Path) -> Path:
    """The folder in transformers' format that a finished artifact stands for."""
    pointer = artifact / POINTER
    return Path(json.loads(pointer.read_text(encoding="utf-8"))["path"]) if pointer.exists() else artifact / MODEL


def damage(artifact: Path, *, up_to: int | None = None) -> str:
    """What is wrong with the model that an artifact points at, in words; empty where nothing is, and where it points at none.

    Of files of more than `up_to` bytes the size alone is compared.
    """
    if not (artifact / POINTER).is_file():
        return ""
    told = json.loads((artifact / POINTER).read_text(encoding="utf-8"))
    folder = Path(told["path"])
    if not folder.is_dir():
        return f"the model it points at, {folder}, is not there"
    for name, (size, known) in told.get("files", {}).items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size or (not (up_to is not None and size > up_to) and content_digest(path) != known):
            return f"{path} is not what it was when the run began"
    return ""


def route(artifact: Path) -> str:
    """How a file in a folder of another artifact of the same store names the model of this one."""
    return f"{_UP}{artifact.name}/{MODEL}"


def routed(folder: Path, name: str) -> Path | None:
    """The model that `name`, a `route` read in `folder`, leads to: from the store, or from where a run directory shows the
    artifact. None where `name` is no route, or nothing lies at its end."""
    key = name.removeprefix(_UP).removesuffix(f"/{MODEL}")
    if name != f"{_UP}{key}/{MODEL}":
        return None
    for store in _stores(folder.absolute()):
        artifact = store / key
        if (artifact / POINTER).is_file() or (artifact / MODEL).is_dir():
            return model_path(artifact)
    return None


def _stores(folder: Path) -> Iterator[Path]:
    """Where artifacts may lie that a folder belongs to: the store around it, those of the runs around it, the environment's."""
    yield folder.parent.parent
    for parent in folder.parents:
        record = parent / "experiment.json"
        if record.is_file():
            yield parent / str(json.loads(record.read_text(encoding="utf-8")).get("store", "store"))
        yield parent / "store"
    if given := os.environ.get("EVENHAND_STORE"):
        yield Path(given)
