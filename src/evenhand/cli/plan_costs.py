"""What a plan costs, on the terminal: columns of its table, and what there is to say below it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from evenhand.display import in_bytes

if TYPE_CHECKING:
    from evenhand.plan.costs.forecast import PlanCosts, StageForecast
    from evenhand.run_experiment import Run


def costs_of(prepared: Run, *, workers: int | None = None, anew: bool = False) -> PlanCosts:
    """The costs of a prepared run, with a line on the screen while they are worked out."""
    import sys

    from evenhand.cli.progress import Waiting
    from evenhand.plan.costs.predict import costs
    from evenhand.runner.local import default_workers

    chosen = next((n for n in (workers, prepared.workers) if n is not None), default_workers(prepared.threads))
    with Waiting("costs", sys.stderr) as waiting:
        return costs(
            prepared.plan, prepared.store, workers=chosen, threads=prepared.threads, anew=anew, saying=waiting.now
        )  # fmt: skip


def cells(found: StageForecast, made: bool) -> tuple[str, str]:
    """Memory and time of a stage: what was spent where it is made, else what is predicted; nothing where neither is known."""
    from evenhand.report.formatting import duration

    if made:
        spent = found.spent
        if spent is None:
            return "", ""
        return "" if spent.peak_bytes is None else in_bytes(spent.peak_bytes), duration(spent.seconds)
    cost = found.predicted
    if cost is None:
        return "", ""
    return f"~{in_bytes(cost.peak_bytes)}" + (f" x {cost.processes}" if cost.processes > 1 else ""), f"~{duration(cost.seconds)}"


def lines(costs: PlanCosts) -> Iterator[str]:
    """All together, for whom it was predicted, and what does not fit."""
    from evenhand.report.formatting import amount, duration

    if costs.unknown:
        yield f"costs are not known: {costs.unknown}"
    if costs.to_run and (machine := costs.machine) is not None:
        largest = max(c.peak_bytes for c in costs.to_run)
        unit = "GPU-hours" if machine.kind == "cuda" else "processor-hours"
        yield (
            f"To run, about: {duration(costs.seconds)} with {costs.workers} at a time "
            f"({costs.device_seconds * max(machine.threads, 1) / 3600:.2g} {unit}), {amount(costs.tokens)} tokens, "
            f"{in_bytes(costs.disk_bytes)} of disk; at most {in_bytes(largest)} of {in_bytes(machine.memory_bytes)} memory. "
            f"For {machine.name}, {machine.threads} thread{'s' if machine.threads > 1 else ''}; --probe measures it anew."
        )
        if any(not c.known for c in costs.to_run):
            yield "Sampled answers, and rows that could not be looked at, are taken as long as `lengths` allows."
    for stage in costs.too_large:
        assert stage.predicted is not None
        fix = f"it fits with {stage.fix}" if stage.fix else "no smaller setting that was tried fits: take a smaller model"
        yield f"{stage.node} does not fit: {in_bytes(stage.predicted.peak_bytes)}; {fix}"
    if not costs.too_large and costs.machine is not None and costs.together > costs.machine.memory_bytes:
        yield (
            f"{costs.workers} stages at a time may hold {in_bytes(costs.together)}, "
            f"there are {in_bytes(costs.machine.memory_bytes)}: use fewer --workers"
        )
