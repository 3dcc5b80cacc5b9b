"""How many functions of the package a pair, and a token of a rollout, meet from file to record: the table of docs/design.md.

A run of two steps in one process is watched by `sys.setprofile`; every function of the package that is called counts once,
comprehensions and lambdas not at all. The page is left out. `python -m benchmarks.on_the_way` writes the table anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import evenhand

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- functions:begin -->", "<!-- functions:end -->"
ARMS = {"a pair": "{method: dpo}", "a rollout": "{method: rloo, reward: gold}"}
EXPERIMENT = """
name: watched
model: {{pretrain: {{documents: 64, train: {{steps: 2}}}}}}
data: {{world: quickstart}}
seeds: [0]
sft: {{train: {{steps: 2}}}}
train: {{steps: 2, prompts_per_step: 4}}
arms: {{start: {{method: start}}, watched: {arm}}}
evaluation: {{prompts: 8}}
runtime: {{workers: 0}}
"""
ON_THE_LINE = (
    "data",
    "worlds",
    "models",
    "core",
    "objectives",
    "engines",
    "rewards",
    "judges",
    "train",
    "stages",
    "stats",
    "results",
)
"""Rooms that the data itself passes; the others check, plan, run, store and tell."""


def called(arm: str) -> set[tuple[str, str]]:
    """(file, qualified name) of every function of the package that a run with this arm calls."""
    package = Path(evenhand.__file__).parent
    codes: set[CodeType] = set()

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_flags & CO_OPTIMIZED:  # a class's own block is no function
            codes.add(frame.f_code)

    with tempfile.TemporaryDirectory() as folder:
        os.environ["EVENHAND_STORE"] = str(Path(folder) / "store")
        sys.setprofile(watch)
        try:
            evenhand.run(EXPERIMENT.format(arm=arm), out=Path(folder) / "out")
        finally:
            sys.setprofile(None)
    named = {(Path(code.co_filename), code.co_qualname) for code in codes if "<" not in code.co_name}
    return {(str(file.relative_to(package)), name) for file, name in named if file.is_relative_to(package)}


def by_room(arm: str) -> Counter[str]:
    """Room of the house -> functions called; the page's room is left out."""
    rooms = (file.split("/")[0].removesuffix(".py") for file, _ in called(arm))
    return Counter(room for room in rooms if room != "report")


def table(counts: dict[str, Counter[str]]) -> str:
    """Rooms on the line first, most functions first, then the others, with sums."""
    rooms = sorted(set().union(*counts.values()), key=lambda room: -max(found[room] for found in counts.values()))
    groups = {"on the line": [r for r in rooms if r in ON_THE_LINE], "around it": [r for r in rooms if r not in ON_THE_LINE]}
    lines = [f"| rooms | {' | '.join(counts)} |", f"|---|{'--:|' * len(counts)}"]
    for title, members in groups.items():
        lines.append(f"| **{title}** | " + " | ".join(f"**{sum(c[r] for r in members)}**" for c in counts.values()) + " |")
        lines += [f"| `{room}` | " + " | ".join(str(c[room]) for c in counts.values()) + " |" for room in members]
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) > 1:  # one arm in a process of its own, so that what is cached by the first does not hide from the second
        print("\n".join(f"{room} {number}" for room, number in by_room(sys.argv[1]).items()))
        return
    counts = {}
    for name, arm in ARMS.items():
        command = [sys.executable, "-m", "benchmarks.on_the_way", arm]
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
        pairs = [line.rsplit(" ", 1) for line in said.splitlines() if line.rpartition(" ")[2].isdigit()]
        counts[name] = Counter({room: int(number) for room, number in pairs})
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(counts)}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
