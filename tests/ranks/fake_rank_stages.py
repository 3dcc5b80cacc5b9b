"""A stage whose second rank runs out of memory unless micro-batches are small."""

from __future__ import annotations

import json
from typing import Any

from evenhand.stages.context import StageContext
from evenhand.train.memory import StepTooLarge, smaller


def run(spec: Any, context: StageContext) -> None:
    size = spec.train.tokens_per_microbatch
    tried = context.out / "tried.json"
    if context.ranks.first:
        before = json.loads(tried.read_text()) if tried.exists() else []
        tried.write_text(json.dumps([*before, size]))
    context.ranks.everyone(size)  # all have begun
    if context.ranks.rank == 1 and size > 256:
        error = StepTooLarge("a micro-batch does not fit")
        error.smaller = smaller(spec.train, longest=200) if spec.train.on_memory == "smaller" else None
        raise error
    context.ranks.everyone(size)  # the others wait here for one that is gone


STAGES = {"fit": run}
