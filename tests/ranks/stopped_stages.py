"""A stage whose first rank stands still in the middle of its work, as a process that the machine has no time for."""

from __future__ import annotations

import os
import signal
from typing import Any

from evenhand.stages.context import StageContext


def run(spec: Any, context: StageContext) -> None:
    if context.ranks.first:
        (context.out / "rank").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
        (context.out / "model").write_text("written late")
    context.ranks.everyone(None)


STAGES = {"fit": run}
