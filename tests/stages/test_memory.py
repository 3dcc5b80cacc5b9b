"""A step that does not fit into memory: said with what would fit, or tried again with smaller micro-batches."""

from __future__ import annotations

import json
import logging

import pytest
import torch

from evenhand.errors import UserError
from evenhand.models.adapter_config import Adapter
from evenhand.run_experiment import execute, prepare
from evenhand.train import loop, memory
from evenhand.train.config import Train

TINY = {
    "name": "tiny",
    "data": {"world": "quickstart", "sizes": {"preferences": 24, "heldout_preferences": 4, "prompts": 8, "heldout_prompts": 4}},
    "model": {"pretrain": {"documents": 8, "train": {"steps": 1}}},
    "lengths": {"prompt": 64, "completion": 48},
    "runtime": {"device": "cpu"},
    "reward_models": {"rm": {"train": {"steps": 4, "prompts_per_step": 12, "checkpoint_every": 2}}},
}
REAL = loop.accumulate
ROOM = 700
"""Tokens of a micro-batch that fit into the pretended memory."""


def small_machine(monkeypatch, room=ROOM, begins=0):
    """A machine whose memory ends after `begins` steps of the reward model."""
    seen = {"steps": 0, "largest": []}

    def accumulate(model, objective, batches, *more):
        largest = max(b.layout.total for b in batches)
        if type(objective).__name__ == "BradleyTerry":
            if seen["steps"] >= begins and largest > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            seen["steps"] += 1
            seen["largest"].append(largest)
        return REAL(model, objective, batches, *more)

    monkeypatch.setattr(loop, "accumulate", accumulate)
    return seen


def trained(out, **train):
    own = {**TINY["reward_models"]["rm"]["train"], **train}
    return execute(prepare({**TINY, "reward_models": {"rm": {"train": own}}}, out=out), workers=0)[0], out


def metrics(out):
    return [json.loads(line) for line in next(out.glob("reward_models/rm/seed-0/metrics.jsonl")).read_text().splitlines()]


@pytest.fixture(scope="module")
def always_small(tmp_path_factory):
    """The metrics of a run whose micro-batches are small from the start."""
    return metrics(trained(tmp_path_factory.mktemp("small"), tokens_per_microbatch=512)[1])


def test_a_step_that_does_not_fit_is_said_with_what_would(monkeypatch, tmp_path):
    small_machine(monkeypatch)
    outcome, _ = trained(tmp_path)
    said = outcome.errors["reward_models/rm/seed-0"]
    assert "reward_model, seed 0: a micro-batch of up to 8192 tokens does not fit into the memory" in said
    assert "the longest row has" in said
    assert "train.tokens_per_microbatch=4096" in said


@pytest.mark.parametrize("begins", [0, 3])
def test_smaller_micro_batches_are_tried_where_that_is_asked(always_small, monkeypatch, tmp_path, caplog, begins):
    """From the start, and from the newest checkpoint: the result is that of a run that always had them."""
    seen = small_machine(monkeypatch, begins=begins)
    with caplog.at_level(logging.WARNING):
        outcome, run = trained(tmp_path / "asked", on_memory="smaller")
    assert outcome.ok, outcome.errors
    assert max(seen["largest"][begins:]) <= ROOM
    said = [r.getMessage() for r in caplog.records if "out of memory" in r.getMessage()]
    assert said[-1] == "out of memory: micro-batches of at most 512 tokens from here on"
    a = metrics(run)
    assert [r["step"] for r in a] == [1, 2, 3, 4]
    assert [r["loss"] for r in a] == pytest.approx([r["loss"] for r in always_small], rel=1e-4)


def test_how_memory_is_met_is_in_no_key(tmp_path):
    plans = [prepare({**TINY, "train": {"on_memory": how}}, out=tmp_path).plan for how in ("stop", "smaller")]
    keys = [[n.key for n in plan.nodes] for plan in plans]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("train", "longest", "ways"),
    [
        (Train(tokens_per_microbatch=8192), 600, ["tokens_per_microbatch=4096", "gradient_checkpointing=true", "adapter"]),
        (Train(tokens_per_microbatch=512), 600, ["gradient_checkpointing=true", "adapter", "shorter `lengths`"]),
        (Train(tokens_per_microbatch=512, gradient_checkpointing=True), 600, ["adapter", "shorter `lengths`", "fewer --workers"]),
    ],
)
def test_ways_out_are_those_that_are_left(train, longest, ways):
    model = torch.nn.Linear(4, 4)
    model.device = torch.device("cpu")  # type: ignore[assignment]
    said = memory.step_too_large(train, model, longest, where="dpo, seed 0").fix
    assert [way for way, part in zip(ways, said.split("; else "), strict=True) if way in part] == ways


@pytest.mark.parametrize(
    ("dtype", "train", "offered"),
    [
        (torch.bfloat16, Train(), True),
        (torch.float16, Train(), False),
        (torch.bfloat16, Train(adapter=Adapter(rank=2)), False),
        (torch.bfloat16, Train(optimizer="adamw_8bit"), False),
    ],
)
def test_moments_in_eight_bits_are_offered_where_they_are_taken(monkeypatch, dtype, train, offered):
    monkeypatch.setattr(memory, "_memory", lambda device: 1)
    model = torch.nn.Linear(4, 4).to(dtype)
    model.device = torch.device("cpu")  # type: ignore[assignment]
    assert ("adamw_8bit" in memory.step_too_large(train, model, 600, where="dpo, seed 0").fix) == offered


def test_other_errors_are_not_memorys(monkeypatch, tmp_path):
    def broken(*given, **named):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(loop, "accumulate", broken)
    outcome, _ = trained(tmp_path)
    assert any("shape mismatch" in said for said in outcome.errors.values())


def test_any_stage_that_runs_out_says_so(monkeypatch, tmp_path):
    from evenhand.runner.job import Job
    from evenhand.runner.process import Setting
    from evenhand.runner.worker import perform

    job = Job(name="generations/a", kind="x", spec=None, seed=0, key="a" * 20, inputs={}, meta={})
    monkeypatch.setattr("evenhand.stages.STAGES", {"x": _full})
    with pytest.raises(UserError, match="generations/a: out of memory"):
        perform(job, Setting(store=tmp_path, stages="evenhand.stages", threads=1), lambda *a, **k: None)


def _full(spec, context):
    raise MemoryError
