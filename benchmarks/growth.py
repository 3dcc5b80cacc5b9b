"""How a step's time and memory grow: `python -m benchmarks.growth docs` writes growth.json, growth.svg and growth.md.

One axis is varied at a time: the prompt, the completion, the group, the model. A step takes the gradient of a group's
log-probs and moves (a pair is the group of two), in a process of its own per axis. Its memory is the peak over what the process
held before, its time what its threads computed. Beside each point stands what the planner says.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

GIB = 2**30
AXES: Mapping[str, Sequence[int]] = {
    "prompt": (64, 256, 512, 1024), "completion": (16, 64, 128, 256), "group": (1, 2, 4, 8, 16), "model": (0, 1, 2, 3),
}  # fmt: skip
TITLES = {
    "prompt": "prompt, tokens",
    "completion": "completion, tokens",
    "group": "answers to a prompt",
    "model": "parameters, millions",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GrowthPoint:
    """A step: `prompts` groups of so many answers, by a model of one of `SHAPES`."""

    prompt: int = 256
    completion: int = 64
    group: int = 2
    model: int = 0
    prompts: int = 2


SHAPES: Sequence[Mapping[str, Any]] = (
    {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 4},
    {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 6},
    {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 12, "num_attention_heads": 8},
    {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 12},
)
"""About 7, 16, 38 and 104M parameters."""


def config(point: GrowthPoint) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=8000, num_key_value_heads=2, tie_word_embeddings=True, max_position_embeddings=4096, **SHAPES[point.model]
    )


def measured(axis: str) -> list[dict[str, Any]]:
    """Every point of an axis, in this process: two steps each, the second is what counts."""
    import torch
    from transformers import AutoModelForCausalLM

    from evenhand.models.policy import Policy
    from evenhand.runner import peak
    from evenhand.train.heap import give_back

    torch.set_num_threads(1)
    small = GrowthPoint(prompt=32, completion=16)
    steps(Policy(AutoModelForCausalLM.from_config(config(small), dtype=torch.float32)), small)  # what libraries make at first
    found = []
    for value in AXES[axis]:
        point = replace(GrowthPoint(), **{axis: value})
        give_back()
        peak.begin()
        before = peak.reached() or 0
        torch.manual_seed(0)
        policy = Policy(AutoModelForCausalLM.from_config(config(point), dtype=torch.float32))
        seconds = steps(policy, point)
        most = (peak.reached() or 0) - before
        size = sum(p.numel() for p in policy.parameters())
        del policy
        said, held = predicted(point)
        found.append(
            {"axis": axis, "value": round(size / 1e6) if axis == "model" else value, "seconds": seconds, "bytes": most,
             "said_seconds": said, "said_bytes": held}
        )  # fmt: skip
        print(found[-1], file=sys.stderr, flush=True)
    return found


def steps(policy: Any, point: GrowthPoint) -> float:
    """Processor seconds of the second step."""
    from evenhand.data.batch import pack
    from evenhand.train.optim import AdamW, clip_gradients
    from evenhand.types import Completion, Group, Head, Prompt, TokenGroup, Tokens

    answer = Tokens(ids=(5,) * point.completion, mask=(True,) * point.completion)
    group = Group(prompt=Prompt(content=""), completions=(Completion(content=""),) * point.group)
    row = TokenGroup(prompt=(4,) * point.prompt, completions=(answer,) * point.group, group=group)
    batch = pack([row] * point.prompts)
    optimizer = AdamW(policy, learning_rate=1e-6, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    took = 0.0
    for _ in range(2):
        began = time.process_time()
        policy(batch, frozenset({Head.LOGP})).logp.sum().backward()
        clip_gradients(policy.parameters(), 1.0)
        optimizer.step(1.0)
        took = time.process_time() - began
    return took


def predicted(point: GrowthPoint) -> tuple[float, float]:
    """What the planner says of the same step: seconds, and bytes over what the libraries hold."""
    from evenhand.plan.costs import keep, seconds
    from evenhand.plan.costs.calibration import calibrated
    from evenhand.plan.costs.memory import MemoryLoad, held
    from evenhand.plan.costs.network import Precision, network
    from evenhand.plan.costs.probe import probe
    from evenhand.train.flops import work

    precision, shape = Precision(dtype="float32"), config(point)
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
    """Two rows of panels, time above memory, an axis each: what was measured as a line, what was said as dots."""
    panels = []
    for column, axis in enumerate(AXES):
        own = [r for r in rows if r["axis"] == axis]
        for line, (key, said, unit, scale) in enumerate(
            (("seconds", "said_seconds", "seconds", 1.0), ("bytes", "said_bytes", "GiB", GIB))
        ):
            values = [(r["value"], r[key] / scale, r[said] / scale) for r in own]
            panels.append(panel(values, 20 + 240 * column, 20 + 210 * line, TITLES[axis], unit))
    style = (
        "text{font:11px sans-serif;fill:#333}path{fill:none;stroke:#1f6f8b;stroke-width:2}circle{fill:#c0562b}line{stroke:#bbb}"
    )
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 990 440" role="img" aria-label="Step time and memory">'
    return f'{head}<style>{style}</style><rect width="990" height="440" fill="#fff"/>{"".join(panels)}</svg>\n'


def panel(values: Sequence[tuple[float, float, float]], x: float, y: float, title: str, unit: str) -> str:
    """One small plot with its origin at zero."""
    wide, high = 190, 140
    most_x, most_y = max(v[0] for v in values), 1.1 * max(max(v[1:]) for v in values)

    def place(a: float, b: float) -> tuple[float, float]:
        return x + 40 + wide * a / most_x, y + 20 + high * (1 - b / most_y)

    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in (place(v[0], v[1]) for v in values))
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in (place(v[0], v[2]) for v in values))
    base = y + 20 + high
    marks = "".join(
        f'<text x="{place(v[0], 0)[0]:.1f}" y="{base + 14}" text-anchor="middle">{v[0]:g}</text>' for v in values
        if v[0] == most_x or v[0] > 0.2 * most_x
    )  # fmt: skip
    return (
        f'<line x1="{x + 40}" y1="{base}" x2="{x + 40 + wide}" y2="{base}"/><line x1="{x + 40}" y1="{y + 20}" x2="{x + 40}" '
        f'y2="{base}"/><text x="{x + 40}" y="{y + 12}">{unit}</text><text x="{x + 36}" y="{y + 26}" text-anchor="end">'
        f'{most_y:.2g}</text><text x="{x + 36}" y="{base}" text-anchor="end">0</text>{marks}'
        f'<text x="{x + 40 + wide / 2}" y="{base + 30}" text-anchor="middle">{title}</text><path d="{path}"/>{dots}'
    )


def page(rows: Sequence[Mapping[str, Any]], machine: str) -> str:
    """The figure, its table, and what it shows."""
    lines = ["| varied | value | seconds | said | memory | said |", "|---|---|---|---|---|---|"]
    for r in rows:
        lines.append(
            f"| {TITLES[r['axis']]} | {r['value']} | {r['seconds']:.2f} | {r['said_seconds']:.2f} | {r['bytes'] / GIB:.2f} GiB | "
            f"{r['said_bytes'] / GIB:.2f} GiB |"
        )
    return TEXT.format(machine=machine, table="\n".join(lines))


TEXT = """# How a step grows

One optimizer step in float32 on one thread of {machine}: two prompts of 256 tokens with two answers of 64 tokens each, by a
network of 7M parameters, unless the axis says otherwise. Lines are measured (processor seconds; memory over what the process
held before), dots are what the planner of [scaling.md](scaling.md) says of the same step. Written by
`python -m benchmarks.growth docs`. TRL is not beside it here (its steps at fixed sizes are in [benchmarks.md](benchmarks.md));
ranks and models beyond 104M are not in it.

![Step time and memory against prompt, completion, group and model](growth.svg)

A prompt is computed once for all of its answers, so that a group costs its prompt plus each answer: the line over the group
starts at the prompt's share and rises by one answer at a time.

{table}
"""


def main() -> None:
    """With a folder: measure every axis in a process of its own and write all three files. With an axis: measure it, print it."""
    given = sys.argv[1]
    if given in AXES:
        print(json.dumps(measured(given)))
        return
    docs, rows = Path(given), []
    for axis in AXES:
        done = subprocess.run([sys.executable, "-m", "benchmarks.growth", axis], stdout=subprocess.PIPE, text=True, check=True)
        rows += json.loads(done.stdout.splitlines()[-1])
    from evenhand.plan.costs.machine import processor

    (docs / "growth.json").write_text(json.dumps(rows, indent=1) + "\n")
    (docs / "growth.svg").write_text(drawing(rows))
    (docs / "growth.md").write_text(page(rows, processor()))


if __name__ == "__main__":
    main()
