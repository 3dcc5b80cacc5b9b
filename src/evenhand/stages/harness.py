"""A task of lm-evaluation-harness on an arm's model, item by item, so that arms can be compared on the same items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from evenhand.errors import UserError
from evenhand.models.load import whole_folder
from evenhand.stages.common import begin
from evenhand.stages.context import StageContext
from evenhand.stages.setup import Setup
from evenhand.store.pointer import model_path
from evenhand.store.whole import write_json


@dataclass(frozen=True, kw_only=True, slots=True)
class HarnessSpec:
    """The input `policy` on `task`; see `evaluation.harness.run_tasks`."""

    KIND: ClassVar[str] = "harness"
    VERSION: ClassVar[int] = 1

    task: str
    limit: int | None = None
    shots: int | None = None
    chat_template: bool = False
    include: str | None = None
    include_fingerprint: str | None = None
    setup: Setup


def run(spec: HarnessSpec, context: StageContext) -> None:
    from evenhand.evaluation.harness import run_tasks

    device = begin(spec.setup.compute)
    with whole_folder(model_path(context.inputs["policy"])) as folder:
        found = run_tasks(
            str(folder), [spec.task], include=spec.include, shots=spec.shots, limit=spec.limit,
            chat_template=spec.chat_template, device=device, seed=context.seed,
        )  # fmt: skip
    write_json(context.out / "verdicts.json", items(found, spec.task))


def items(found: dict[str, dict[str, Any]], task: str) -> dict[str, Any]:
    """The per-item values of the task's own metric, of all its subtasks, as outcomes in [0, 1]."""
    values = [(f"{name}:{i}", value) for name, row in found.items() for i, value in enumerate(row["items"])]
    if not values:
        raise UserError("the task reports no values item by item", where=f"task {task}", fix="name another task")
    if wrong := [value for _, value in values if not 0.0 <= value <= 1.0]:
        raise UserError(f"an item's value is {wrong[0]:g}, not in [0, 1]", where=f"task {task}", fix="name another task")
    return {
        "prompt_id": [name for name, _ in values], "outcome": [value for _, value in values],
        "metric": next(iter(found.values()))["metric"],
    }  # fmt: skip
