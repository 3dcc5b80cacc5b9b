"""A run in a process of its own, to be killed: python run_forever.py OUT TRACE PAUSE WORKERS."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fake_stages import Plan, chain_plan

from evenhand.runner.local import run
from evenhand.runner.protocol import Outcome
from evenhand.store.store import Store


def go(out: Path, plan: Plan, workers: int) -> Outcome:
    return run(plan, Store(out / "store"), out, workers=workers, stages="fake_stages")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is handed down to us with it ignored
    folder, trace, pause, count = sys.argv[1:]
    try:
        outcome = go(Path(folder), chain_plan(trace, float(pause)), int(count))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if outcome.ok else 3)
