"""Which weights each arm kept, on what, and that nothing which chose them also judges them."""

from __future__ import annotations

from typing import Any

from evenhand.results.run_artifacts import Finished

FILE = "selection.json"


def selections(done: Finished) -> dict[str, dict[str, Any]]:
    """Arm -> seed -> what its stage says of its choice; arms that keep their last weights are not there.

    `shared_prompts` counts the validation prompts that are among the evaluation's: anything but 0 makes the arm look better
    than it is. What choosing on the evaluation prompts would have added is not known, since no other weights are judged.
    """
    found: dict[str, dict[str, Any]] = {}
    for arm in done.arms:
        if not done.plan.trained(arm):
            continue
        for seed in done.seeds(arm):
            node = done.plan[done.plan.arms[arm][seed]]
            path = done.store.path(node.key) / FILE
            if path.exists():
                shared = len(_validation(done, node.name) & set(done.verdicts[arm][seed]["prompt_id"]))
                found.setdefault(arm, {})[str(seed)] = {**done.load(node.name, FILE), "shared_prompts": shared}
    return found


def _validation(done: Finished, name: str) -> frozenset[str]:
    """Ids of the prompts that chose."""
    from evenhand.stages.training_run import FitSpec
    from evenhand.stages.validate import held_out  # torch, only where an arm asks for it

    node = done.plan[name]
    inputs = {role: done.store.path(done.plan[other].key) for role, other in node.inputs.items()}
    assert isinstance(node.spec, FitSpec)
    return held_out(node.spec, inputs, node.spec.build())
