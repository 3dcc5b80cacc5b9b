"""A node's stage, in this process."""

from __future__ import annotations

import importlib

from evenhand.errors import UserError
from evenhand.runner.job import Job
from evenhand.stages.context import StageContext


def run(job: Job, stages: str, context: StageContext) -> None:
    """Runs the stage that the module `stages` has for this kind of node.

    Raises: UserError where memory ran out.
    """
    stage = importlib.import_module(stages).STAGES[job.kind]
    try:
        stage(job.spec, context)
    except (MemoryError, RuntimeError) as error:
        raise _plainly(error, job) from error


def _plainly(error: Exception, job: Job) -> Exception:
    """A library's words for a lack of memory as a message; any other error as it is."""
    from evenhand.train.memory import ran_out

    if not ran_out(error):
        return error
    fix = "fewer --workers, shorter `lengths`, smaller `train.tokens_per_microbatch`, or `model: {dtype: bfloat16}`"
    return UserError("out of memory", where=job.name, why=str(error).partition("\n")[0][:200], fix=fix)
