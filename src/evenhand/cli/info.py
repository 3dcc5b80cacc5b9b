"""`evenhand env` and `evenhand theory`: what is installed, what the methods are."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer

from evenhand.runner.installed import version_of

_PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "pydantic", "typer", "rich", "datasets", "peft",
    "vllm", "trl",
)  # fmt: skip


def env() -> None:
    """Versions, device and cores, to paste into a bug report."""
    for name, value in facts().items():
        print(f"{name:<14} {value}")


def theory(
    page: Annotated[
        Path | None, typer.Option(help="Write it as a page too (markdown), with figures beside it: a minute.")
    ] = None,
) -> None:
    """Check what the mathematics promises, on problems small enough to enumerate; about fifteen seconds."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = importlib.import_module("evenhand.theory").table()
    held = sum(row.holds for row in rows)
    table = Table(box=None, title=f"{held} of {len(rows)} claims hold", title_justify="left")
    table.add_column("claim")
    for column in ("expected", "measured", ""):
        table.add_column(column, no_wrap=True)
    for row in rows:
        expected = f"{row.expected} (to {row.tolerance:.0e})" if row.expected == "0" else row.expected
        verdict = Text("holds", style="green") if row.holds else Text("DOES NOT HOLD", style="bold red")
        table.add_row(Text(row.claim), expected, f"{row.measured:.1e}", verdict)
    Console().print(table)
    if page is not None:
        importlib.import_module("evenhand.report.theory_page").write(page, rows)
    if held < len(rows):
        raise typer.Exit(1)


def facts() -> dict[str, str]:
    """What a bug report needs to know about this machine."""
    import evenhand
    from evenhand.plan.costs.machine import processor

    found = {"evenhand": evenhand.__version__, "python": sys.version.split()[0], "platform": platform.platform()}
    found["processor"] = f"{processor()}, {len(os.sched_getaffinity(0))} cores usable"
    found["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    found["device"] = _device()
    for package in _PACKAGES:
        found[package] = version_of(package) or "not installed"
    found.update({k: v for k, v in sorted(os.environ.items()) if k.startswith(("EVENHAND_", "OMP_", "CUDA_VISIBLE"))})
    return found


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    names = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    return f"CUDA {torch.version.cuda}: " + ", ".join(f"{p.name} ({p.total_memory / 2**30:.0f} GiB)" for p in names)


COMMANDS = (env, theory)
