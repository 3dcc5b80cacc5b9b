"""A run in a process of its own, to be killed: python run_forever.py OUT TRACE PAUSE WORKERS [ray]."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fake_stages import Plan, chain_plan

from evenhand.runner.local import run
from evenhand.runner.protocol import Outcome
from evenhand.runner.ray_cluster import RayRunner
from evenhand.store.store import Store


def go(out: Path, plan: Plan, workers: int, runner: str = "local") -> Outcome:
    if runner == "ray":
        return RayRunner(stages="fake_stages")(plan, Store(out / "store"), out, workers=workers)
    return run(plan, Store(out / "store"), out, workers=workers, stages="fake_stages")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is handed down to us with it ignored
    folder, trace, pause, count, *runner = sys.argv[1:]
    try:
        outcome = go(Path(folder), chain_plan(trace, float(pause)), int(count), *runner)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if outcome.ok else 3)
