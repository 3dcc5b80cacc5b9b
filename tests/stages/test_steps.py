"""A process reward model through the real plan and stages: from a file of labelled steps to arms, and its card."""

from __future__ import annotations

import json

import pytest

from evenhand import worlds
from evenhand.stages.common import open_model_reward
from evenhand.stages.setup import Compute, Setup
from evenhand.train.config import Lengths
from tests.stages.performed import perform, setup
from tests.stages.test_signals import TRAIN, carried_out


def steps(path, count: int) -> str:
    """Rows of two steps in the words of the built-in world; the second is right where the first is."""
    rows = []
    for n, group in enumerate(worlds.get("quickstart").preferences(3, count)):
        first, second = (c.text for c in group.completions)
        turns = [{"role": m.role, "content": m.content} for m in group.prompt.content]
        rows.append({"prompt": turns, "steps": [first, second], "labels": [n % 2, n % 2]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    file = steps(tmp_path_factory.mktemp("rows") / "steps.jsonl", 24)
    arms = {
        "start": {"method": "start"},
        "rloo": {"method": "rloo", "reward": "grader", "completions_per_prompt": 2},
        "ppo": {
            "method": "ppo", "reward": {"kind": "model", "name": "grader", "rule": "differences"}, "completions_per_prompt": 2,
            "updates": 1, "epochs": 1,
        },
    }  # fmt: skip
    return carried_out(
        {
            "name": "graded", "baseline": "start", "initial_policy": "base",
            "data": {"world": "quickstart", "sizes": {"prompts": 16, "preferences": 16, "heldout_preferences": 8}},
            "model": {"pretrain": {"documents": 32, "train": TRAIN}}, "lengths": {"prompt": 32, "completion": 24},
            "splits": {"steps": {"source": file}},
            "reward_models": {
                "grader": {"method": "process_reward_model", "aggregate": "product", "data": "steps", "train": TRAIN},
            },
            "train": {**TRAIN, "learning_rate": 1e-3}, "arms": arms, "evaluation": {"prompts": 4},
            "judge": {"reward": {"kind": "length", "unit": "words"}, "self_test": 0}, "runtime": {"device": "cpu"},
        },
        tmp_path_factory.mktemp,
    )  # fmt: skip


def test_arms_learn_by_what_the_steps_come_to(done):
    plan, folders = done
    for name in ("rloo", "ppo"):
        out = next(folders[n.name] for n in plan.nodes if n.name.startswith(f"arms/{name}/"))
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert all(0 < row["reward"] < 1 for row in rows)
        assert all(row["reward/least"] <= row["reward/last"] + 1e-6 and row["reward/steps"] >= 1 for row in rows)
        assert rows[0]["grad_norm"] > 0
    grader = next(folders[n.name] for n in plan.nodes if n.name.startswith("reward_models/grader/seed"))
    made = Setup(compute=Compute(device="cpu", dtype="float32"), lengths=Lengths(prompt=32, completion=24))
    assert open_model_reward(grader, made, "cpu").aggregate == "product"


def test_labelled_steps_make_a_card(done, tmp_path):
    """Held-out rows of steps: one column per label, no probes of whole answers."""
    from evenhand.data.jsonl import write_groups
    from evenhand.data.load import load
    from evenhand.stages.evaluate_reward_model import EvaluateRewardModelSpec

    plan, folders = done
    grader = next(folders[n.name] for n in plan.nodes if n.name.startswith("reward_models/grader/seed"))
    groups = load(steps(tmp_path / "held.jsonl", 6)).groups
    write_groups(tmp_path / "data" / "heldout_preferences.jsonl", groups)
    inputs = {"model": grader, "data": tmp_path / "data"}
    out = perform("evaluate_reward_model", EvaluateRewardModelSpec(setup=setup(32, 24)), inputs, tmp_path / "out")
    found = json.loads((out / "scores.json").read_text())
    assert [c == 0.0 for c in found["chosen"]] == [g.scores[0] == 0.0 for g in groups]
    assert [r == 0.0 for r in found["rejected"]] == [g.scores[0] == 1.0 for g in groups]
    assert json.loads((out / "probes.json").read_text()) == {}


def test_a_model_of_steps_that_are_all_alike_needs_no_scale(tmp_path):
    """A probability is its own scale: rows too few or too alike to take one from end in no error."""
    from evenhand.models.artifacts import NORMALISATION_FILE
    from evenhand.rewards.model import Normalisation
    from evenhand.stages.reward_models import normalise

    normalise(None, None, {"kind": "process"}, tmp_path)  # looks at neither rows nor model
    assert not (tmp_path / NORMALISATION_FILE).exists()
    assert Normalisation.load(tmp_path) == Normalisation()
