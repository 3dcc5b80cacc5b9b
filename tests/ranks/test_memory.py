"""A rank that runs out of memory: all begin again with smaller micro-batches where that was asked for."""

from __future__ import annotations

import json

import pytest

from evenhand.errors import UserError
from evenhand.runner.job import Job
from evenhand.runner.process import Setting
from evenhand.runner.ranks import together
from evenhand.stages.context import StageContext
from evenhand.stages.fit import FitSpec
from evenhand.stages.setup import Compute, Setup
from evenhand.train.config import Lengths, Train


def job(on_memory: str) -> Job:
    setup = Setup(compute=Compute(device="cpu", dtype="float32", world_size=2), lengths=Lengths())
    spec = FitSpec(method="sft", train=Train(steps=1, tokens_per_microbatch=1024, on_memory=on_memory), setup=setup)
    return Job(name="arm", kind="fit", spec=spec, seed=0, inputs={}, key="aa" * 16, meta={})


def run(tmp_path, on_memory: str) -> None:
    setting = Setting(store=tmp_path, stages="tests.ranks.fake_rank_stages", threads=1, log=tmp_path / "log")
    together(job(on_memory), setting, StageContext(seed=0, inputs={}, out=tmp_path))


def test_all_ranks_begin_again_with_half_until_one_fits(tmp_path):
    run(tmp_path, "smaller")
    assert json.loads((tmp_path / "tried.json").read_text()) == [1024, 512, 256]


def test_where_nobody_asked_the_stage_stops_with_the_message(tmp_path):
    with pytest.raises(UserError, match="a micro-batch does not fit"):
        run(tmp_path, "stop")
    assert json.loads((tmp_path / "tried.json").read_text()) == [1024]
