"""How long nodes took before, and what their plan predicted: only for the estimates of the next run, never part of a result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from evenhand.plan.costs import keep
from evenhand.runner.state import RunState, StageStatus

if TYPE_CHECKING:
    from evenhand.plan.graph import Node

FILE = Path("logs") / "timings.jsonl"


def remember(run: RunState, out: Path) -> None:
    """Appends the seconds of every node this run finished to `out/logs/timings.jsonl`."""
    done = [c for c in run.cells.values() if c.status is StageStatus.DONE]
    rows = [{"node": c.node.name, "kind": c.node.kind, "key": c.node.key, "seconds": round(c.seconds(c.ended), 3)} for c in done]
    if rows:
        (out / FILE).parent.mkdir(parents=True, exist_ok=True)
        with open(out / FILE, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))


def board(nodes: Sequence[Node], store: Path, out: Path, workers: int) -> RunState:
    """The state of a run that begins, with all that is known of how long it will take."""
    return RunState(nodes, workers=workers, usual=usual(out), forecast=forecast(nodes, store))


def forecast(nodes: Iterable[Node], store: Path) -> dict[str, float]:
    """The seconds that were predicted for nodes when their plan was looked at."""
    found = {n.name: keep.prediction(store, n.key) for n in nodes}
    return {name: f.predicted.seconds for name, f in found.items() if f is not None and f.predicted is not None}


def usual(out: Path) -> dict[str, float]:
    """The latest seconds by kind of node from earlier runs in this folder."""
    found: dict[str, float] = {}
    for line in (out / FILE).read_bytes().split(b"\n") if (out / FILE).is_file() else ():
        with suppress(ValueError, LookupError, TypeError):  # a kill or a full disk cut a line, and the next was put behind it
            row = json.loads(line)
            found[str(row["kind"])] = float(row["seconds"])
    return found
