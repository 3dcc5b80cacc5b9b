"""Which weights each arm kept, on what, and that nothing which chose them also judges them."""

from __future__ import annotations

from dataclasses import replace

from evenhand.results.files import parsed
from evenhand.results.record_parts import CheckpointChoice
from evenhand.results.run_artifacts import RunArtifacts

FILE = "selection.json"


def selections(done: RunArtifacts) -> dict[str, dict[str, CheckpointChoice]]:
    """Arm -> seed -> what its stage says of its choice; arms that keep their last weights are not there.

    `shared_prompts` counts the validation prompts that are among the evaluation's: anything but 0 makes the arm look better
    than it is. What choosing on the evaluation prompts would have added is not known, since no other weights are judged.
    """
    found: dict[str, dict[str, CheckpointChoice]] = {}
    for arm in done.arms:
        if not done.plan.trained(arm):
            continue
        for seed in done.seeds(arm):
            node = done.plan[done.plan.arms[arm][seed]]
            path = done.store.path(node.key) / FILE
            if done.has(node.name) and path.exists():
                shared = len(_validation(done, node.name) & set(done.verdicts[arm][seed]["prompt_id"]))
                choice = parsed(CheckpointChoice, done.load(node.name, FILE))
                found.setdefault(arm, {})[str(seed)] = replace(choice, shared_prompts=shared)
    return found


def _validation(done: RunArtifacts, name: str) -> frozenset[str]:
    """Ids of the prompts that chose."""
    from evenhand.stages.training_run import FitSpec
    from evenhand.stages.validate import held_out  # torch, only where an arm asks for it

    node = done.plan[name]
    inputs = {role: done.store.path(done.plan[other].key) for role, other in node.inputs.items()}
    assert isinstance(node.spec, FitSpec)
    return held_out(node.spec, inputs, node.spec.build())
