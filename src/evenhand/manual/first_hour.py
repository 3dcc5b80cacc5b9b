"""docs/first_hour.md: the page docs/first_model.md done from an empty folder, with all that was written and how long it took.

    python -m evenhand.manual.first_hour MODEL docs

MODEL is a folder with the model that the page names by its Hub name, in whose place it is put.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from evenhand.manual.snippets import Snippet, commands
from evenhand.runner.installed import versions
from evenhand.runner.job import machine
from evenhand.runner.progress import duration

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
LONGEST = 60
"""Lines of one output that are shown."""


def page(text: str, model: Path) -> str:
    """The record of every file and command of `text`. Raises: CalledProcessError where a command fails."""
    with tempfile.TemporaryDirectory() as place:
        folder, begun, parts = Path(place), time.monotonic(), list[str]()
        (folder / NAME).parent.mkdir()
        (folder / NAME).symlink_to(model.resolve())
        for step in commands(text):
            if isinstance(step, Snippet):
                (folder / step.file).write_text(step.text, encoding="utf-8")
                parts.append(f"`{step.file}`\n\n```{step.language}\n{step.text}```")
            else:
                parts.append(_done(step, folder))
        whole = duration(time.monotonic() - begun)
    return "\n\n".join([*_head(whole), *parts]) + "\n"


def _head(whole: str) -> list[str]:
    made, here = versions(), machine()["processor"]
    return [
        "# The first hour, recorded",
        "[A real model, your own pairs, your own reward](first_model.md), every step of it from an empty folder, written by\n"
        "`python -m evenhand.manual.first_hour MODEL docs` and edited nowhere.",
        f"It took {whole} on {here}, {os.cpu_count()} cores shared with other work (torch {made['torch']}, transformers\n"
        f"{made['transformers']}). The model lay in a folder of the Hub's name: downloading it is not in the times. The file\n"
        "that `init` wrote was run as it is: corrections counted as edits of it before a run ended well are 0.",
    ]


def _done(command: str, folder: Path) -> str:
    """One command with its output and how long it took."""
    begun, path = time.monotonic(), os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ran = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": path, "COLUMNS": "110", "NO_COLOR": "1"},
        encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True,
    )  # fmt: skip
    return f"```text\n$ {command}\n{_shown(ran.stdout, folder)}```\n\n{duration(time.monotonic() - begun)}"


def _shown(text: str, folder: Path) -> str:
    """An output without the folder's name; of a long one the beginning and the end."""
    lines = [line.rstrip() for line in text.replace(f"{folder}/", "").splitlines()]
    if len(lines) > LONGEST:
        half = LONGEST // 2
        lines = [*lines[:half], f"... {len(lines) - LONGEST} lines more ...", *lines[-half:]]
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    docs = Path(sys.argv[2])
    text = page((docs / "first_model.md").read_text(encoding="utf-8"), Path(sys.argv[1]))
    (docs / "first_hour.md").write_text(text, encoding="utf-8")
