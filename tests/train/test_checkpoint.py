from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from evenhand.store import digests
from evenhand.train import checkpoint
from evenhand.train.optim import AdamW


def pair():
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    return model, AdamW(model, learning_rate=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0)


def train(model, optimizer, steps):
    for i in range(steps):
        model(torch.tensor([[1.0, float(i)]])).square().sum().backward()
        optimizer.step(1.0)


def test_round_trip_is_exact_and_only_the_last_is_kept(tmp_path):
    model, optimizer = pair()
    train(model, optimizer, 2)
    checkpoint.save(tmp_path, step=2, model=model, optimizer=optimizer, state={"extra": 0.1})
    train(model, optimizer, 1)
    checkpoint.save(tmp_path, step=3, model=model, optimizer=optimizer, state={"extra": 0.1 + 0.2})
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-00000003"]
    fresh, fresh_optimizer = pair()
    state = checkpoint.load(checkpoint.latest(tmp_path), model=fresh, optimizer=fresh_optimizer)
    assert state == {"step": 3, "extra": 0.1 + 0.2}
    train(model, optimizer, 3), train(fresh, fresh_optimizer, 3)
    assert torch.equal(model.weight, fresh.weight)


def test_a_half_written_checkpoint_is_not_seen(tmp_path):
    (tmp_path / "checkpoint.partial").mkdir()
    assert checkpoint.latest(tmp_path) is None


def saved(out, step=2):
    model, optimizer = pair()
    train(model, optimizer, 1)
    checkpoint.save(out, step=step, model=model, optimizer=optimizer, state={})


def test_a_snapshot_that_is_not_written_again_must_be_what_was_written(tmp_path):
    snapshot = tmp_path / "snapshots" / "step-1"
    snapshot.mkdir(parents=True)
    (snapshot / "model").write_bytes(b"weights")
    digests.seal(snapshot)
    saved(tmp_path)
    assert checkpoint.latest(tmp_path) is not None
    (snapshot / "model").write_bytes(b"Weights")
    assert checkpoint.latest(tmp_path) is None


def test_lines_of_later_steps_are_cut_off_whatever_step_they_say(tmp_path):
    """Nothing says what they were: one bit turns a 3 into a 2."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    saved(tmp_path)
    with open(path, "a") as file:
        file.write('{"step": 2}\n')
    assert checkpoint.latest(tmp_path) is not None
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_log_is_cut_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    log = checkpoint.Log(path, resume_step=2)
    log.append({"step": 3, "again": True})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_a_sample_that_holds_a_line_separator_survives_the_cut(tmp_path):
    path = tmp_path / "samples.jsonl"
    log = checkpoint.Log(path, resume_step=-1)
    for step in (1, 2, 3):
        log.append({"step": step, "text": "one\u2028two\u2029three\x85four"})
    whole = path.read_bytes()
    checkpoint.Log(path, resume_step=2).append({"step": 3, "text": "one\u2028two\u2029three\x85four"})
    assert path.read_bytes() == whole


def test_a_kill_while_the_log_is_cut_leaves_the_log(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')

    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    monkeypatch.setattr("os.fsync", kill)
    with pytest.raises(Killed):
        checkpoint.Log(path, resume_step=1)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
