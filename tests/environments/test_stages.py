"""An environment named by an experiment, through the real plan and stages: training, evaluation, kills, refusals, the page."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from evenhand.data.jsonl import read_groups
from evenhand.environments.registry import ENVIRONMENTS
from evenhand.plan.plan import build
from evenhand.protocols import Reply
from evenhand.spec.read import read_experiment
from evenhand.types import Message
from tests.environments.play import Played, tool
from tests.stages.test_signals import TRAIN, carried_out

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
MARKED = "<b>7</b>"
ARMS = {
    "start": {"method": "start"},
    "grpo": {"method": "grpo", "advantage": "turn_centre", "reward": "environment", "completions_per_prompt": 3, "updates": 2},
    "ppo": {"method": "ppo", "reward": "both", "completions_per_prompt": 2, "updates": 2, "epochs": 1},
}


class Sometimes(Played):
    """Two replies and an end; one answer in eight it fails at its first turn."""

    def __init__(self, context) -> None:
        first = RuntimeError("no route") if context.seed % 8 == 0 else tool("7", 0.5)
        super().__init__([first, Reply((Message("tool", "3"), Message("tool", "9")), -0.25), tool("", 1.0, done=True)])


@pytest.fixture(autouse=True)
def sometimes():
    ENVIRONMENTS.register("sometimes")(lambda context: Sometimes(context))
    yield
    del ENVIRONMENTS.entries["sometimes"]


def experiment(arms: dict | None = None, **more) -> dict:
    return {
        "name": "turns", "baseline": "start",
        "data": {"world": "arithmetic", "options": {"calculator": 0.5}, "sizes": {"demonstrations": 24, "prompts": 16}},
        "model": {"pretrain": {"documents": 32, "shape": SMALL, "train": TRAIN}},
        "lengths": {"prompt": 32, "completion": 40}, "sft": {"train": TRAIN},
        "environment": {"kind": "sometimes", "turns": 3},
        "rewards": {"both": {"kind": "weighted", "parts": [{"reward": "environment"}, {"reward": "arithmetic", "weight": 2.0}]}},
        "train": {**TRAIN, "steps": 4, "sample_every": 4, "checkpoint_every": 1}, "arms": arms or ARMS,
        "evaluation": {"prompts": 6}, "judge": {"reward": "arithmetic", "self_test": 0},
        "runtime": {"device": "cpu", "workers": 0},
        **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    ENVIRONMENTS.register("sometimes")(lambda context: Sometimes(context))
    try:
        return carried_out(experiment(), tmp_path_factory.mktemp)
    finally:
        del ENVIRONMENTS.entries["sometimes"]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def out(done, name: str) -> Path:
    plan, folders = done
    return next(folders[n.name] for n in plan.nodes if n.name.startswith(name))


def test_arms_learn_and_their_metrics_count_turns_and_failures(done):
    for name in ("grpo", "ppo"):
        rows = lines(out(done, f"arms/{name}/") / "metrics.jsonl")
        assert all(1 <= row["turns"] <= 3 for row in rows)
        assert max(row["environment_tokens"] for row in rows) > 0
        assert all(row["environment_failed"] == int(row["environment_failed"]) for row in rows)
        assert any(row["grad_norm"] > 0 for row in rows)
    both = lines(out(done, "arms/ppo/") / "metrics.jsonl")[0]
    assert {"reward/environment", "reward/arithmetic"} <= both.keys()


def test_samples_show_the_turns(done):
    rows = [row for row in lines(out(done, "arms/grpo/") / "samples.jsonl") if len(row["turns"]) > 1]
    assert rows
    for row in rows:
        assert [m["role"] for turn in row["turns"] for m in turn["messages"]][:2] == ["assistant", "tool"]
        assert sum(turn["tokens"] for turn in row["turns"]) == len(row["tokens"])
        assert row["length"] == sum(turn["tokens"] for turn in row["turns"] if "reward" in turn)


def test_held_out_answers_are_written_in_the_same_environment(done):
    answers = [g.completions[0] for g in read_groups(out(done, "generations/start/") / "generations.jsonl")]
    assert any(len(c.turns) > 1 for c in answers)
    measured = json.loads((out(done, "generations/start/") / "measured.json").read_text())
    assert measured["turns"] == [sum(t.written for t in c.turns) for c in answers]
    assert measured["length"] == [c.written for c in answers]


def test_a_kill_and_a_resume_in_the_middle_of_a_rollout_change_no_byte(done, tmp_path):
    """Killed after steps 1 and 3, each inside a rollout of two updates: weights, metrics and samples are those of one go."""
    from evenhand.stages import fit
    from evenhand.stages.context import StageContext

    class Killed(BaseException):
        pass

    def report(kill_at, step, of, **figures):
        if step == kill_at and of == 4:
            raise Killed

    plan, folders = done
    for name in ("grpo", "ppo"):
        node = next(n for n in plan.nodes if n.name.startswith(f"arms/{name}/"))
        inputs, folder = {role: folders[other] for role, other in node.inputs.items()}, tmp_path / name
        folder.mkdir()
        for kill_at in (2, 4, None):
            context = StageContext(seed=node.seed, inputs=inputs, out=folder, report=partial(report, kill_at))
            try:
                fit.run(node.spec, context)
            except Killed:
                assert kill_at is not None
        for file in ("model/model.safetensors", "metrics.jsonl", "samples.jsonl"):
            assert (folder / file).read_bytes() == (folders[node.name] / file).read_bytes(), (name, file)


def faults(**more) -> str:
    from evenhand.errors import UserError

    with pytest.raises(UserError) as told:
        read_experiment(experiment(**more))
    return str(told.value)


def test_what_is_refused_before_anything_runs():
    assert "unknown environment 'calculater'" in faults(environment={"kind": "calculater"})
    assert "did you mean 'calculator'" in faults(environment="calculater")
    assert "unknown key 'turn'" in faults(environment={"kind": "calculator", "turn": 3})
    for turns in (2.0, float("inf"), float("nan"), True):
        assert "is not a whole number" in faults(environment={"kind": "calculator", "turns": turns})
    assert "turns is 0" in faults(environment={"kind": "calculator", "turns": 0})
    assert "environment.seconds" in faults(evaluation={"prompts": 4, "environment": {"kind": "calculator", "seconds": "long"}})
    offline = {"start": {"method": "start"}, "sft": {"method": "sft", "environment": "calculator"}}
    assert "sft samples nothing" in faults(arms=offline)
    alone = {"start": {"method": "start"}, "rloo": {"method": "rloo", "reward": "environment", "environment": "none"}}
    assert "no environment gives a reward" in faults(arms=alone)


def test_who_is_in_which_environment():
    """The shared one holds for arms that sample and for the comparison; each may have another, or none."""
    arms = {**ARMS, "alone": {**ARMS["grpo"], "reward": "arithmetic", "environment": "none"}}
    plan = build(read_experiment(experiment(arms, evaluation={"prompts": 6, "environment": "calculator"})).value)
    of = {n.name: n.spec.environment for n in plan.nodes if hasattr(n.spec, "environment")}
    shared = {"kind": "sometimes", "turns": 3}
    assert (of["arms/grpo/seed-0"], of["arms/alone/seed-0"]) == (shared, None)
    assert of["sft"] is None
    assert {v for k, v in of.items() if k.startswith("generations/")} == {"calculator"}
    plain = build(read_experiment(experiment(environment=None, arms={"start": {"method": "start"}})).value)
    assert all(getattr(n.spec, "environment", None) is None for n in plain.nodes)


def test_the_keys_of_other_experiments_are_what_they_were():
    """A field at its default is in no key; another environment is another arm and another answer, and no other start."""
    one, two = (build(read_experiment(experiment(environment=e)).value) for e in ("sometimes", {"kind": "sometimes", "turns": 2}))
    same = {n.name for n in one.nodes if n.name in {m.name for m in two.nodes} and one[n.name].key == two[n.name].key}
    assert {"data", "base", "sft"} <= same
    assert not [name for name in same if name.startswith(("arms/", "generations/"))]
