"""What is installed where a process runs, and what of the store it sees: quickly imported, for machines that are only asked."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

import evenhand


def versions() -> dict[str, str]:
    """The versions an artifact depends on."""
    installed = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}
    return {"evenhand": evenhand.__version__, "python": platform.python_version(), **installed}


def version_of(package: str) -> str:
    """The version of a package that may be installed; "" of one that is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def seen(token: str) -> tuple[bool, dict[str, str]]:
    """Whether a file of the store is there, and the versions."""
    return Path(token).exists(), versions()
