"""The base model: a local folder or a hub name, resolved once and pointed at; an adapter is merged into its base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.models import adapter_files
from evenhand.stages.common import POINTER, write_json


def run(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], out: Path, report: Callable[..., None]) -> None:
    folder = Path(spec["path"]).expanduser()
    if not folder.is_dir():
        folder = download(spec["path"], spec["revision"])
    settle(folder, out, base=spec.get("base"))


def settle(folder: Path, out: Path, *, base: str | None = None) -> None:
    """Let the artifact `out` stand for the model in `folder`: by a pointer, or for an adapter as a model of its own."""
    if adapter_files.is_adapter(folder):
        from evenhand.models.load import merge_adapter

        merge_adapter(folder, out / "model", base=base)
        return
    if base is not None:
        raise UserError(f"'{folder}' is a model, not an adapter", where="model.base", fix="remove `base`, or point to an adapter")
    write_json(out / POINTER, {"path": str(folder.resolve())})


def download(name: str, revision: str | None, *, where: str = "model.path") -> Path:
    """A hub model's files, safetensors and tokenizer only; from the local cache when offline."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        raise UserError(
            f"cannot find '{name}' here or on the hub ({type(error).__name__})",
            where=where,
            fix="give a local folder, check the name, or log in for a gated model",
        ) from error
