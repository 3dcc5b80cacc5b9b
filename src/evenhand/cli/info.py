"""`evenhand env`, `evenhand theory` and `evenhand keys`: what is installed, what the methods are, what a file may say."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import evenhand

if TYPE_CHECKING:
    from evenhand.spec.keys import Found

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
    from evenhand.plan.costs.machine import processor
    from evenhand.runner.installed import version_of

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


def complete_key(incomplete: str) -> list[str]:
    """Paths and bare names of keys, for the completion of shells."""
    from evenhand.spec.keys import sections

    every = [key for section in sections() for key in section.keys]
    return sorted({n for key in every for n in ((key.path,) if "." in incomplete else (key.name,)) if n.startswith(incomplete)})


def keys(
    key: Annotated[
        str,
        typer.Argument(
            help="A key (train.warmup), a mapping (train), a bare name, a method (dpo), or another tool's word.",
            autocompletion=complete_key,
        ),
    ] = "",
    json_schema: Annotated[bool, typer.Option("--json-schema", help="The JSON schema of a file, for editors.")] = False,
) -> None:
    """What an experiment file may say: type, default, unit and meaning of every key."""
    if json_schema:
        from evenhand.manual.reference import schema

        print(schema(), end="")
        return
    from evenhand.spec.keys import Found, find, sections

    top = sections()[0]
    found = find(key) if key else [Found(top, k) for k in top.keys]
    if len(found) == 1:
        print("\n".join(one(found[0])))
        return
    for line in several(found):
        print(line)


def one(found: Found) -> list[str]:
    """A key in full."""
    key = found.key
    title = f" ({found.section.title})" if found.section.title and found.section.path else ""
    kind = key.type + (f", in {key.unit}" if key.unit else "")
    default = {"": "", "required": "; required"}.get(key.default, f"; default {key.default}")
    return [f"{key.path}{title}: {kind}{default}", f"  {key.meaning}"]


def several(found: Sequence[Found]) -> list[str]:
    """Keys under their mappings, methods and kinds that say the same together; of a whole section these are named only."""
    by_title: dict[tuple[str, str], list[Found]] = {}
    for f in found:
        by_title.setdefault((f.section.path, f.section.title), []).append(f)
    kinds = [title.partition(": ")[2] for _, title in by_title if ": " in title]
    named = len(kinds) > 5 and any(": " not in title for _, title in by_title)
    alike: dict[tuple[str, ...], list[str]] = {}
    for (path, title), group in by_title.items():
        if named and ": " in title:
            continue
        width = max(len(f.key.path) - len(path) for f in group)
        what, _, kind = title.partition(": ")
        said = (path, what, *(_line(f, path, width) for f in group))
        alike.setdefault(said, []).append(kind)
    lines: list[str] = []
    for (path, what, *rows), of in alike.items():
        of_what = what + (f": {', '.join(of)}" if any(of) else "")
        lines += [f"{path or 'the file'}{f' ({of_what})' if what and path else ''}", *rows]
    return lines + ([f"and those of its method or kind: {', '.join(kinds)}"] if named else [])


def _line(found: Found, path: str, width: int) -> str:
    key = found.key
    default = f" [{key.default}]" if key.default else ""
    unit = f" In {key.unit}." if key.unit else ""
    return f"  {key.path[len(path) :].lstrip('.'):<{width}} {key.meaning}{unit}{default}"
