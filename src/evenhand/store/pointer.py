"""A model that an artifact stands for and does not hold: its folder, and what lay there when the artifact was made.

Names in other artifacts lead from one artifact to another (`../../KEY/model`), never to a folder of the machine, so that a run
directory can be moved; a pointer is the one file that names one, since it is about that folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evenhand.configfile.text_file import json_object
from evenhand.store import digests
from evenhand.store.fingerprint import MODEL_FILES, content_digest, digest, matching
from evenhand.store.whole import write_whole

POINTER = "model.json"
"""{"path": folder, "files": {name: [bytes, digest]}}; older ones have the path alone."""
MODEL, ADAPTER = "model", "adapter"
"""Where an artifact holds its model: whole, or what an adapter changed of the model it was trained from."""
TRAINED = "trained.json"
"""{"start": route or folder, "start_weights": digest, "dtype": precision}, beside an adapter that was trained here."""
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
    if (artifact / POINTER).exists():
        return Path(_told(artifact)["path"])
    return artifact / (MODEL if (artifact / MODEL).is_dir() or not holds_model(artifact) else ADAPTER)


def holds_model(folder: Path) -> bool:
    """Whether a model lies in the folder, whole or as an adapter."""
    return (folder / MODEL).is_dir() or (folder / ADAPTER / "adapter_config.json").is_file()


def adapter_beside(folder: Path) -> Path | None:
    """The adapter of an arm whose `model/`, asked for as `folder`, is not there because its adapter is all that was kept."""
    beside = folder.with_name(ADAPTER)
    return beside if folder.name == MODEL and not folder.exists() and holds_model(folder.parent) else None


def damage(artifact: Path, *, up_to: int | None = None) -> str:
    """What is wrong with the model that an artifact points at, in words; empty where nothing is, and where it points at none.

    Of files of more than `up_to` bytes the size alone is compared.
    """
    if not (artifact / POINTER).is_file():
        return ""
    told = _told(artifact)
    folder = Path(told["path"])
    if not folder.is_dir():
        return f"the model it points at, {folder}, is not there"
    for name, (size, known) in told.get("files", {}).items():
        if why := digests.difference(folder, name, size, known, up_to):
            return f"{folder}: {why}"
    return ""


def recorded_weights(artifact: Path) -> str:
    """A name of the weights that an artifact stands for, by the digests of when it was finished; empty where there are none."""
    if (artifact / POINTER).is_file():
        files = {name: known for name, (_, known) in _told(artifact).get("files", {}).items()}
    else:
        below = f"{model_path(artifact).name}/"
        files = {name: known for name, (_, known) in digests.recorded(artifact).items() if name.startswith(below)}
    named = sorted([name, known] for name, known in files.items() if name.endswith((".safetensors", TRAINED)))
    return digest(named) if named else ""


def start_key(artifact: Path) -> str | None:
    """The key of the artifact without which the adapter in this one is nothing; None where the model is whole."""
    if model_path(artifact) != artifact / ADAPTER or not (artifact / ADAPTER / TRAINED).is_file():
        return None
    return _key(str(json.loads((artifact / ADAPTER / TRAINED).read_text(encoding="utf-8")).get("start", "")))


def route(artifact: Path) -> str:
    """How a file in a folder of another artifact of the same store names the model of this one."""
    return f"{_UP}{artifact.name}/{MODEL}"


def routed(folder: Path, name: str) -> Path | None:
    """The model that `name`, a `route` read in `folder`, leads to: from the store, or from where a run directory shows the
    artifact. None where `name` is no route, or nothing lies at its end."""
    artifact = routed_artifact(folder, name)
    return None if artifact is None else model_path(artifact)


def routed_artifact(folder: Path, name: str) -> Path | None:
    """The artifact that a `route` leads to; see `routed`."""
    if (key := _key(name)) is None:
        return None
    for store in _stores(folder.absolute()):
        artifact = store / key
        if (artifact / POINTER).is_file() or holds_model(artifact):
            return artifact
    return None


def _key(name: str) -> str | None:
    """The key in a `route`; None where the name is none."""
    key = name.removeprefix(_UP).removesuffix(f"/{MODEL}")
    return key if key and name == f"{_UP}{key}/{MODEL}" else None


def _told(artifact: Path) -> dict[str, Any]:
    return json.loads((artifact / POINTER).read_text(encoding="utf-8"))


def _stores(folder: Path) -> Iterator[Path]:
    """Where artifacts may lie that a folder belongs to: the store around it, those of the runs around it, the environment's."""
    for parent in folder.parents:
        yield parent  # a model may lie deeper in its artifact than at the top: weights of a step on the way
        yield parent / str(json_object(parent / "experiment.json").get("store", "store"))
        yield parent / "store"
    if given := os.environ.get("EVENHAND_STORE"):
        yield Path(given)
