"""What a training stage says, and what ends it: a diverged step in the user's words, remarks on the way, limits of the user's."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.methods import Method
from evenhand.models.load import save
from evenhand.protocols import Source
from evenhand.stages.training_run import TrainingRun
from evenhand.store.whole import write_json
from evenhand.train.monitor import STOPPED, WARNINGS, Monitor, Remark
from evenhand.train.nonfinite import GRADIENT, LOSS, WEIGHTS, NonfiniteDiagnosis, NotFinite, SuspectRow
from evenhand.train.rules import RULES
from evenhand.types import TokenGroup

LAST_GOOD = "last_good"
"""In the unfinished artifact of a stage that diverged: the weights before the step that failed, in transformers' format."""
SHOWN = 3
"""Rows named in a message."""
_log = logging.getLogger(__name__)


def silent(method: Method) -> frozenset[str]:
    """Rules that mean nothing for a method: a flat group costs one that compares answers across prompts nothing."""
    plan = method.rollouts
    return frozenset() if plan is None or plan.credit.compares else frozenset({"flat"})


def see(watching: Monitor, step: int, metrics: Mapping[str, float]) -> bool:
    """Say what is new after `step`; True when training ends here."""
    for remark in watching.see(step, metrics):
        _log.warning("%s", remark)
    if watching.stop is not None:
        _log.warning("training stopped at step %d because %s", step, watching.stop.sentence)
    return watching.stop is not None


def write(watching: Monitor, run: TrainingRun, out: Path) -> None:
    """Leave WARNINGS, and STOPPED where training was ended; a limit that was never measured is said."""
    shutil.rmtree(out / LAST_GOOD, ignore_errors=True)  # of an attempt that diverged under another version
    write_json(out / WARNINGS, [asdict(remark) for remark in watching.remarks.values()])
    if watching.stop is not None:
        write_json(out / STOPPED, stopped(watching.stop, run.steps))
    for name in watching.stop_when:
        if RULES[name].value(watching.history) is None:
            _log.warning("stop_when.%s never applied: this run recorded too little of it (%s)", name, RULES[name].measures)


def stopped(remark: Remark, steps: int) -> dict[str, Any]:
    return {"rule": remark.rule, "step": remark.step, "of": steps, "value": remark.value, "limit": remark.limit,
            "sentence": remark.sentence}  # fmt: skip


@contextmanager
def explained(run: TrainingRun, source: Source, out: Path) -> Iterator[None]:
    """A step whose loss or gradient is not finite as one message; the weights before it are kept."""
    try:
        yield
    except NotFinite as error:
        with run.ranks.whole(run.model):
            if error.step > 1 and run.ranks.first:
                save(run.model, run.renderer.tokenizer, out / LAST_GOOD, stop_ids=run.renderer.stop_ids)
        raise diverged(error, run, source.groups, out) from error


def diverged(error: NotFinite, run: TrainingRun, groups: Sequence[TokenGroup], out: Path) -> UserError:
    """What, where, why and how to fix, with the numbers at hand."""
    where = f"{run.spec.method}, seed {run.seed}, step {error.step} of {run.steps}"
    kept = f"; the weights before this step are in {out / LAST_GOOD}" if error.step > 1 else ""
    return UserError(
        f"the {error.quantity} is {error.value}: training ended before the weights were moved",
        where=where,
        why=f"{_cause(error.diagnosis)}{_rows(error.diagnosis, run, groups)} ({_numbers(error.diagnosis, run, groups)})",
        fix=f"{_fix(error.diagnosis, run)}; the way there is in {out / 'metrics.jsonl'}{kept}",
    )


_CAUSES = {
    WEIGHTS: "the weights hold inf or NaN, so they were broken before this step began",
    "batch score": "a label or reward in the data is infinite",
    "batch advantage": "an advantage is not finite, so a reward or a value was infinite, or so large that its square is",
    "batch ref_logp": "the reference gives an answer a log-prob that is not finite",
    "model logp": "the model gives a token a log-prob that is not finite: its activations have overflowed",
    LOSS: "every log-prob is finite and the loss of a row is not: an exponential or a square in it has overflowed",
    GRADIENT: "every row's loss is finite and its gradient is not: the backward pass has overflowed",
}


def _cause(found: NonfiniteDiagnosis) -> str:
    kind, _, name = found.first.partition(" ")
    known = f"{'the batch holds a' if kind == 'batch' else 'the model gives a'} {name} that is not finite"
    return _CAUSES.get(found.first, known)


def _rows(found: NonfiniteDiagnosis, run: TrainingRun, groups: Sequence[TokenGroup]) -> str:
    """Where in the step: micro-batch, row, and the prompts by their ids and last words."""
    if not found.rows:
        return ""
    more = f" and {len(found.rows) - SHOWN} more rows" if len(found.rows) > SHOWN else ""
    return ", in " + "; ".join(_row(r, found, run, groups) for r in found.rows[:SHOWN]) + more


def _row(row: SuspectRow, found: NonfiniteDiagnosis, run: TrainingRun, groups: Sequence[TokenGroup]) -> str:
    text = run.renderer.tokenizer.decode(list(row.prompt))
    name = next((f" {g.group.prompt.id}" for g in groups if g.prompt == row.prompt), "")
    return f"micro-batch {row.microbatch + 1} of {found.microbatches}, row {row.row + 1}, prompt{name} ending {text[-50:]!r}"


def _numbers(found: NonfiniteDiagnosis, run: TrainingRun, groups: Sequence[TokenGroup]) -> str:
    train = run.spec.train
    parts = [f"train.learning_rate {train.learning_rate:g}, the method's default is {run.method.learning_rate:g}"]
    parts += [f"clip {train.clip:g}", f"weights in {_precision(run)}"]
    parts += [f"largest finite {name} {value:.4g}" for name, value in found.largest.items()]
    scores = [s for g in groups for s in g.group.scores if math.isfinite(s)] if run.method.online else []
    ends = (min(scores), max(scores)) if scores else found.reward
    if ends is not None:
        parts.append(f"{'rewards' if scores else 'scores'} from {ends[0]:.4g} to {ends[1]:.4g}")
    return "; ".join(parts)


def _precision(run: TrainingRun) -> str:
    return str(next(run.model.parameters()).dtype).removeprefix("torch.")


def _fix(found: NonfiniteDiagnosis, run: TrainingRun) -> str:
    if found.first in ("batch score", "batch advantage"):
        return "bound the reward (None for an answer it cannot judge)"
    if found.first.startswith("batch"):
        return "look at these rows and the model that scored them with `evenhand doctor`"
    rate = run.spec.train.learning_rate
    assert rate is not None, "the plan settles it"
    lower = f"lower train.learning_rate (try {min(rate / 10, run.method.learning_rate):.2g})"
    if _precision(run) == "float16":
        lower += ", or set model.dtype to bfloat16"
    clip = run.spec.train.clip
    return lower + (", and set train.clip (1 is usual)" if clip <= 0 or math.isinf(clip) or clip > 1 else "")
