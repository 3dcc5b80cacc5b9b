"""Fake stages and plans for the machinery's tests. A worker process imports this module by the name `fake_stages`."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evenhand.errors import UserError


class FakeSpec(dict[str, Any]):
    """The settings of a stage, which has a version as every spec has."""

    VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The shape of plan.Node (structural: the machinery reads attributes only)."""

    name: str
    kind: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    row: str = "shared"
    column: str = "shared"
    key: str = ""
    cost: str = ""
    after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", FakeSpec(self.spec))

    @property
    def needs(self) -> tuple[str, ...]:
        return (*self.inputs.values(), *self.after)


@dataclass(frozen=True, slots=True)
class Plan:
    nodes: tuple[Node, ...]
    plugins: tuple[Any, ...] = ()
    judge_test: str | None = None
    generations: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    @property
    def arms(self) -> dict[str, dict[int, str]]:
        """Of nodes called arms/ARM/seed-S."""
        found: dict[str, dict[int, str]] = {}
        for node in self.nodes:
            if node.name.startswith("arms/"):
                _, arm, seed = node.name.split("/")
                found.setdefault(arm, {})[int(seed.removeprefix("seed-"))] = node.name
        return found

    def trained(self, arm: str) -> bool:
        return True


def plan(*nodes: Node) -> Plan:
    """Fills in the keys, as plan.build would."""
    keys: dict[str, str] = {}
    keyed = []
    for node in nodes:
        inputs = {role: keys[name] for role, name in node.inputs.items()}
        text = json.dumps([node.kind, dict(node.spec), node.seed, inputs], sort_keys=True)
        keys[node.name] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        values = {f: getattr(node, f) for f in ("name", "kind", "spec", "inputs", "seed", "row", "column", "cost", "after")}
        keyed.append(Node(**values, key=keys[node.name]))
    return Plan(tuple(keyed))


def chain(spec, context):
    """A resumable stage: a hash chain of spec["steps"] links, checkpointed at every link, one line of a trace per link run.

    The result depends on spec, seed and inputs alone; spec["trace"] (outside the store) shows what was run and when resumed.
    """
    inputs, out, seed, report = context.inputs, context.out, context.seed, context.report
    state = out / "checkpoint.json"
    link, done = "", 0
    if state.exists():
        link, done = json.loads(state.read_text())
    start = "".join((folder / "chain.txt").read_text() for _, folder in sorted(inputs.items()))
    for step in range(done, spec["steps"]):
        link = hashlib.sha256(f"{link}{start}{seed}{step}".encode()).hexdigest()
        time.sleep(spec.get("pause", 0))
        if spec.get("trace"):
            with open(spec["trace"], "a") as file:
                file.write(f"{os.getpid()} {seed} {step}\n")
        while held(spec.get("hold") or os.environ.get("EVENHAND_TEST_HOLD"), seed, step):
            time.sleep(0.01)  # until the test lets go, or a signal ends it
        partial = out / "checkpoint.new"
        partial.write_text(json.dumps([link, step + 1]))
        partial.replace(state)
        report(step + 1, spec["steps"], phase="chain", loss=1.0 / (step + 1))
    (out / "chain.txt").write_text(link)
    state.unlink()
    print("chain complete")


def held(path: str | None, seed: int, step: int) -> bool:
    """Whether a chain waits at this step: while the file is there, and names its seed and a step that it has reached."""
    try:
        seeds, first = json.loads(Path(path).read_text() or "[[1, 2], 0]") if path else ((), 0)
    except FileNotFoundError:
        return False
    return seed in seeds and step >= first


def fail(spec, context):
    (context.out / "work.txt").write_text("half")
    raise RuntimeError("the stage\nbroke")


def refuse(spec, context):
    raise UserError("rows are empty", where="data.jsonl:3", fix="remove them")


def die(spec, context):
    os.kill(os.getpid(), spec.get("signal", signal.SIGKILL))


def environment(spec, context):
    (context.out / "chain.txt").write_text(os.environ["OMP_NUM_THREADS"])


def warn(spec, context):
    logging.getLogger("evenhand.data").warning("%d rows left out", 3)
    logging.getLogger("transformers").warning("a library's own affair")
    for _ in range(2):
        context.report(1, 2)


STAGES = {"warn": warn, "chain": chain, "fail": fail, "refuse": refuse, "die": die, "environment": environment}


def chain_plan(trace: str, pause: float, *, steps: int = 12, hold: str = "") -> Plan:
    """Two chains on one shared chain. The trace, the pause and the file that holds them are not part of the keys."""
    spec = {"steps": steps, "trace": trace, "pause": pause, "hold": hold}
    made = plan(
        Node(name="start", kind="chain", spec={"steps": steps}),
        *[
            Node(name=f"arms/a/seed-{seed}", kind="chain", spec={"steps": steps}, seed=seed, inputs={"p": "start"}, row="a")
            for seed in (1, 2)
        ],
    )
    return Plan(tuple(replace(node, spec=spec) for node in made.nodes))


def chain_result(seed: int, start: str = "", *, steps: int = 12) -> str:
    """What `chain` must write, computed without it."""
    link = ""
    for step in range(steps):
        link = hashlib.sha256((link + start + str(seed) + str(step)).encode()).hexdigest()
    return link
