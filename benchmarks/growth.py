"""How a step's time and memory grow: `python -m benchmarks.growth docs` writes growth.json, growth.svg and growth.md.

One axis is varied at a time: the prompt, the completion, the group, the model, the processes. A step takes the gradient of a
group's likelihood and moves (a pair is the group of two). TRL tuned does the same on as many rows, each with its prompt; where it
is not installed, its columns stay empty. Both sides take turns in one process per axis. A step's memory is the peak over what the
process held before, its time what its threads computed; of several ranks the largest. Beside ours stands what the planner says.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import corpus, trl_side
from benchmarks.run import QUIET
from benchmarks.shapes import Model, Training
from benchmarks.worker import Gate

GIB = 2**30
AXES: Mapping[str, Sequence[int]] = {
    "prompt": (64, 256, 512, 1024), "completion": (16, 64, 128, 256), "group": (1, 2, 4, 8, 16), "model": (0, 1, 2, 3),
    "ranks": (1, 2),
}  # fmt: skip
TITLES = {
    "prompt": "prompt, tokens",
    "completion": "completion, tokens",
    "group": "answers to a prompt",
    "model": "parameters, millions",
    "ranks": "processes (ddp)",
}
DRAWN = ("prompt", "completion", "group", "model")  # fmt: skip
VOCABULARY = 8000
SHAPES = tuple(
    Model(name="", vocab=VOCABULARY, width=width, inner=inner, layers=layers, heads=heads)
    for width, inner, layers, heads in ((256, 768, 6, 4), (384, 1024, 8, 6), (512, 1408, 12, 8), (768, 2048, 16, 12))
)
"""About 7, 16, 38 and 104M parameters."""


@dataclass(frozen=True, kw_only=True)
class GrowthPoint:
    """A step: `prompts` groups of so many answers, by a model of one of `SHAPES`, on so many `ranks`."""

    prompt: int = 256
    completion: int = 64
    group: int = 2
    model: int = 0
    prompts: int = 2
    ranks: int = 1

    @property
    def rows(self) -> Training:
        """The same answers as rows of fine-tuning, each with its prompt."""
        return Training(
            name="", kind="sft", model=SHAPES[self.model], rows=self.prompts * self.group, prompt=self.prompt,
            completion=self.completion, spread=0.0,
        )  # fmt: skip


class Watch(Gate):
    """Orders two steps in this process; the second one's processor seconds are kept."""

    def __init__(self) -> None:
        self.device, self.steps, self.seconds, self._worked = "cpu", 0, 0.0, 0.0

    def loaded(self) -> None: ...

    def wait(self) -> Mapping[str, Any] | None:
        self.steps, self._worked = self.steps + 1, time.process_time()
        return {} if self.steps <= 2 else None

    def done(self, **_: Any) -> None:
        self.seconds = time.process_time() - self._worked


def measured(axis: str) -> list[dict[str, Any]]:
    """Every point of an axis, both sides, in this process."""
    sides = [name for name in SIDES if name != "trl_" or find_spec("trl")]
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= QUIET | {"HF_DATASETS_CACHE": scratch}
        warmed(sides, 1, Path(scratch))
        for value in AXES[axis]:
            point = replace(GrowthPoint(), **{axis: value})
            row: dict[str, Any] = {"axis": axis, "value": value}
            for name in sides:
                way = spent if axis != "ranks" else in_ranks
                row[f"{name}seconds"], row[f"{name}bytes"] = way(name, point, Path(scratch))
            if point.ranks == 1:
                row["said_seconds"], row["said_bytes"] = predicted(point)
            if axis == "model":
                model = SHAPES[point.model]
                row["value"] = round((model.body + model.vocab * model.width) / 1e6)
            found.append(row)
            print(row, file=sys.stderr, flush=True)
    return found


def warmed(names: Sequence[str], ranks: int, scratch: Path) -> None:
    """What libraries make when they are first used is made."""
    import torch

    torch.set_num_threads(1)
    for name in names:
        spent(name, GrowthPoint(prompt=32, completion=16, ranks=ranks), scratch)


def spent(name: str, point: GrowthPoint, scratch: Path) -> tuple[float, int]:
    """Processor seconds of a step, and the peak over what was held before."""
    from evenhand.runner import peak
    from evenhand.train.heap import give_back

    folder = scratch / f"model-{point.model}"
    if not folder.exists():
        corpus.save_models(SHAPES[point.model], folder, kinds=("policy",))
    gc.collect()
    give_back()
    peak.begin()
    before, watch = peak.reached() or 0, Watch()
    SIDES[name](watch, point, folder)
    return watch.seconds, (peak.reached() or 0) - before


def in_ranks(name: str, point: GrowthPoint, scratch: Path) -> tuple[float, int]:
    """The largest of what is spent by `ranks` processes that meet at a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(point.ranks)}
    command = [sys.executable, "-m", "benchmarks.growth", "rank", name, str(point.ranks), str(scratch)]
    started = []
    for i in range(point.ranks):
        env = {**os.environ, **({**place, "RANK": str(i), "LOCAL_RANK": str(i)} if point.ranks > 1 else {})}
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
    return max(seconds for seconds, _ in found), max(held for _, held in found)


def rank(name: str, ranks: int, scratch: Path) -> tuple[float, int]:
    """This process's part as one of `ranks`; alone it is started in the same way."""
    from evenhand.runner.torchrun import join
    from evenhand.stages.setup import Compute

    if name == "" and ranks > 1:
        join(Compute(device="cpu", dtype="float32"))
    warmed([name], ranks, scratch)
    return spent(name, GrowthPoint(ranks=ranks), scratch)


def theirs(gate: Gate, point: GrowthPoint, folder: Path) -> None:
    trl_side.train(gate, point.rows, folder, tuned=True, ranks=point.ranks)


def ours(gate: Gate, point: GrowthPoint, folder: Path) -> None:
    """A micro-batch a rank."""
    from evenhand.data.batch import pack
    from evenhand.models.load import load_policy
    from evenhand.objectives import Likelihood
    from evenhand.train import distributed, loop
    from evenhand.train.optim import AdamW, clip_gradients
    from evenhand.train.ranks import ONE
    from evenhand.types import Completion, Group, Prompt, TokenGroup, Tokens

    answer = Tokens(ids=(5,) * point.completion, mask=(True,) * point.completion)
    group = Group(prompt=Prompt(content=""), completions=(Completion(content=""),) * point.group)
    row = TokenGroup(prompt=(4,) * point.prompt, completions=(answer,) * point.group, group=group)
    ranks = distributed.of_group("ddp", "cpu") if point.ranks > 1 else ONE
    policy = load_policy(folder / "policy", device="cpu")
    optimizer = AdamW(policy, learning_rate=1e-6, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    while gate.wait() is not None:
        batches = [pack([row] * (point.prompts // point.ranks)) for _ in range(point.ranks)]
        loop.accumulate(policy, Likelihood(), batches, ranks=ranks)
        clip_gradients(policy.parameters(), 1.0)
        optimizer.step(1.0)
        gate.done()


SIDES = {"": ours, "trl_": theirs}
"""By what stands before the names of its columns."""


def predicted(point: GrowthPoint) -> tuple[float, float]:
    """What the planner says of the same step: seconds, and bytes over what the libraries hold."""
    from transformers import Qwen2Config

    from evenhand.plan.costs import keep, seconds
    from evenhand.plan.costs.calibration import calibrated
    from evenhand.plan.costs.memory import MemoryLoad, held
    from evenhand.plan.costs.network import Precision, network
    from evenhand.plan.costs.probe import probe
    from evenhand.train.flops import work

    precision, shape = Precision(dtype="float32"), Qwen2Config(**SHAPES[point.model].config)
    machine = keep.machine(Path("nowhere"), 1)
    if machine is None:
        machine = probe(1)
        keep.keep_machine(Path("nowhere"), machine)
    speed, net = calibrated(shape, precision, machine), network(shape, precision)
    owner = [i for i in range(point.prompts) for _ in range(point.group)]
    done = work([point.prompt] * point.prompts, [point.completion] * len(owner), owner)
    load = MemoryLoad(largest=done, steps=2)
    return seconds.learn(net, done, speed) + seconds.update(net, machine), held(net, load, machine).peak - machine.library_bytes


def drawing(rows: Sequence[Mapping[str, Any]]) -> str:
    """Two rows of panels, time above memory, an axis each: ours as a line, TRL's dashed, what was said as dots."""
    panels = []
    for column, axis in enumerate(DRAWN):
        own = [r for r in rows if r["axis"] == axis]
        for line, (key, unit, scale) in enumerate((("seconds", "seconds", 1.0), ("bytes", "GiB", GIB))):
            lines = {
                name: [(r["value"], r[f"{name}{key}"] / scale) for r in own if f"{name}{key}" in r]
                for name in ("", "said_", "trl_")
            }
            panels.append(panel(lines, 20 + 240 * column, 20 + 210 * line, TITLES[axis], unit))
    style = (
        "text{font:11px sans-serif;fill:#333}path{fill:none;stroke:#1f6f8b;stroke-width:2}circle{fill:#c0562b}line{stroke:#bbb}"
        ".trl{stroke:#777;stroke-dasharray:5 3}"
    )
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 990 440" role="img" aria-label="Step time and memory">'
    return f'{head}<style>{style}</style><rect width="990" height="440" fill="#fff"/>{"".join(panels)}</svg>\n'


def panel(lines: Mapping[str, Sequence[tuple[float, float]]], x: float, y: float, title: str, unit: str) -> str:
    """One small plot with its origin at zero."""
    wide, high = 190, 140
    own = lines[""]
    most_x, most_y = own[-1][0], 1.1 * max(v for values in lines.values() for _, v in values)

    def place(a: float, b: float) -> tuple[float, float]:
        return x + 40 + wide * a / most_x, y + 20 + high * (1 - b / most_y)

    def path(values: Sequence[tuple[float, float]], kind: str = "") -> str:
        points = "L".join(f"{a:.1f} {b:.1f}" for a, b in (place(*v) for v in values))
        return f'<path{kind} d="M{points}"/>' if points else ""

    dashed = path(lines["trl_"], ' class="trl"')
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in (place(*v) for v in lines["said_"]))
    base = y + 20 + high
    marks = "".join(
        f'<text x="{place(v, 0)[0]:.1f}" y="{base + 14}" text-anchor="middle">{v:g}</text>' for v, _ in own
        if v == most_x or v > 0.2 * most_x
    )  # fmt: skip
    return (
        f'<line x1="{x + 40}" y1="{base}" x2="{x + 40 + wide}" y2="{base}"/><line x1="{x + 40}" y1="{y + 20}" x2="{x + 40}" '
        f'y2="{base}"/><text x="{x + 40}" y="{y + 12}">{unit}</text><text x="{x + 36}" y="{y + 26}" text-anchor="end">'
        f'{most_y:.2g}</text><text x="{x + 36}" y="{base}" text-anchor="end">0</text>{marks}'
        f'<text x="{x + 40 + wide / 2}" y="{base + 30}" text-anchor="middle">{title}</text>'
        f"{dashed}{path(own)}{dots}"
    )


def page(rows: Sequence[Mapping[str, Any]], machine: str) -> str:
    """The figure, its table, and what it shows."""
    lines = ["| varied | value | seconds | said | TRL | times | memory | said | TRL | times |", "|---" * 10 + "|"]
    for r in rows:
        cells = [*shown(r, "seconds", 1.0, ""), *shown(r, "bytes", GIB, " GiB")]
        lines.append("| " + " | ".join([TITLES[r["axis"]], str(r["value"]), *cells]) + " |")
    return TEXT.format(machine=machine, table="\n".join(lines), date=time.strftime("%Y-%m-%d"))


def shown(row: Mapping[str, Any], key: str, scale: float, unit: str) -> list[str]:
    """Ours, what was said, TRL's, and how many times ours that is; empty where it was not measured."""
    found = [f"{row[n + key] / scale:.2f}{unit}" if n + key in row else "" for n in ("", "said_", "trl_")]
    return [*found, f"{row['trl_' + key] / row[key]:.1f}" if f"trl_{key}" in row else ""]


TEXT = """# How a step grows

One optimizer step in float32 on one thread of {machine}, {date}: two prompts of 256 tokens with two answers of 64 tokens each, by
a network of 7M parameters, unless the axis says otherwise. Lines are measured (processor seconds; memory over what the process
held before; other work ran beside), dots are what the planner of [scaling.md](scaling.md) says of the same step. Dashed is TRL
tuned (see [benchmarks.md](benchmarks.md)) in the same run: fine-tuning on the same answers, each a row with its prompt. Written
by `python -m benchmarks.growth docs`. Models beyond 104M are not in it. With two processes, figures are the larger one's.

![Step time and memory against prompt, completion, group and model](growth.svg)

A prompt is computed once for all of its answers, so that a group costs its prompt plus each answer: the line over the group
starts at the prompt's share and rises by one answer at a time. TRL's rises by a prompt and an answer.

{table}
"""


def main() -> None:
    """An axis (or a rank): measure it, print it. A folder and axes (or all): each in a process of its own; write the files."""
    given, *axes = sys.argv[1:]
    if given in AXES or given == "rank":
        print(json.dumps(measured(given) if given in AXES else rank(axes[0], int(axes[1]), Path(axes[2]))))
        return
    docs, kept = Path(given), dict[str, list[Any]]()
    for row in json.loads((docs / "growth.json").read_text()):
        kept.setdefault(row["axis"], []).append(row)
    for axis in axes or AXES:
        done = subprocess.run([sys.executable, "-m", "benchmarks.growth", axis], stdout=subprocess.PIPE, text=True, check=True)
        kept[axis] = json.loads(done.stdout.splitlines()[-1])
    from evenhand.plan.costs.machine import processor

    rows = [row for axis in AXES for row in kept.get(axis, [])]
    (docs / "growth.json").write_text(json.dumps(rows, indent=1) + "\n")
    (docs / "growth.svg").write_text(drawing(rows))
    (docs / "growth.md").write_text(page(rows, processor()))


if __name__ == "__main__":
    main()
