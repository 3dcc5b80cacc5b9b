"""The base model: a local folder or a hub name, resolved once and pointed at; an adapter is merged into its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from evenhand.errors import UserError
from evenhand.hub import hub_error
from evenhand.models import adapter_files
from evenhand.stages.context import StageContext
from evenhand.store import pointer


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """A model that exists: a folder, whose bytes `fingerprint` names, or a hub name at `revision`.

    `base` is the model that an adapter changes.
    """

    path: str
    revision: str | None = None
    fingerprint: str | None = None
    base: str | None = None
    base_fingerprint: str | None = None

    def folder(self, where: str) -> Path:
        folder = Path(self.path).expanduser()
        return folder if folder.is_dir() else download(self.path, self.revision, where=where)


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseSpec:
    """The model that everything starts from."""

    KIND: ClassVar[str] = "base"
    VERSION: ClassVar[int] = 1

    model: ModelSource


def run(spec: BaseSpec, context: StageContext) -> None:
    settle(spec.model.folder("model.path"), context.out, spec.model)


def settle(folder: Path, out: Path, model: ModelSource) -> None:
    """Let the artifact `out` stand for the model in `folder`: by a pointer, or for an adapter as a model of its own."""
    base = model.base
    if adapter_files.is_adapter(folder):
        from evenhand.models.load import merge_adapter

        merge_adapter(folder, out / "model", base=base)
        return
    if base is not None:
        raise UserError(f"'{folder}' is a model, not an adapter", where="model.base", fix="remove `base`, or point to an adapter")
    found = pointer.point(out, folder)
    if model.fingerprint not in (None, found):
        raise UserError(
            "the model is not what it was when it was last read", where=str(folder),
            why="a file's bytes have changed, and its time of change has not",
            fix="restore it; if the change is meant, `touch` its files and run again",
        )  # fmt: skip


def download(name: str, revision: str | None, *, where: str) -> Path:
    """A hub model's files, safetensors and tokenizer only; from the local cache when offline."""
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the Hub's own, the HTTP library's, the downloader's: all of them mean that it is not here
        beside = pointer.adapter_beside(Path(name).expanduser())
        fix = "give a local folder, check the name, or log in for a gated model"
        if beside is not None:
            raise UserError("no such folder", where=where, fix=f"it was trained by an adapter: give {beside}") from None
        raise hub_error(error, f"cannot find '{name}' here or on the hub", where=where, fix=fix) from None
