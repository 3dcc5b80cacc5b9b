"""`evenhand env` and `evenhand theory`: what is installed, what the methods are."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys

_PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "pydantic", "typer", "rich", "datasets", "vllm", "trl"
)  # fmt: skip


def env() -> None:
    """Versions, device and cores, to paste into a bug report."""
    for name, value in facts().items():
        print(f"{name:<14} {value}")


def theory() -> None:
    """The methods as five coordinates each, with their losses and where they converge."""
    from rich.console import Console

    table = importlib.import_module("evenhand.theory").table()
    Console().print(table)


def facts() -> dict[str, str]:
    """What a bug report needs to know about this machine."""
    import evenhand

    found = {"evenhand": evenhand.__version__, "python": sys.version.split()[0], "platform": platform.platform()}
    found["processor"] = f"{_processor()}, {len(os.sched_getaffinity(0))} cores usable"
    found["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    found["device"] = _device()
    for package in _PACKAGES:
        found[package] = _version(package)
    found.update({k: v for k, v in sorted(os.environ.items()) if k.startswith(("EVENHAND_", "OMP_", "CUDA_VISIBLE"))})
    return found


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    names = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    return f"CUDA {torch.version.cuda}: " + ", ".join(f"{p.name} ({p.total_memory / 2**30:.0f} GiB)" for p in names)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


COMMANDS = (env, theory)
