"""What a kill of a training stage loses, and what one during its last seconds leaves behind."""

from evenhand.stages import fit, resume
from evenhand.store import digests
from evenhand.train.config import Train
from tests.stages.performed import perform, setup


def test_a_stage_killed_while_it_removed_its_checkpoints_is_finished(tmp_path):
    """The checkpoint that is left lacks a file: nothing may read it, nothing is trained again."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_text("trained")
    (tmp_path / "ledger.json").write_text("{}")
    digests.seal(tmp_path, but=fit.APART)
    (tmp_path / "checkpoint-00000008").mkdir()
    (tmp_path / "checkpoint-00000008" / "state.json").write_text("{}")
    spec = fit.FitSpec(method="sft", train=Train(), setup=setup())
    perform("fit", spec, {}, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digests.json", "ledger.json", "model"]
    assert (tmp_path / "model" / "model.safetensors").read_text() == "trained"


def saved_at(steps, seconds, writing=1.0, **named):
    """The steps after which a checkpoint is written, where each takes `seconds` and a checkpoint `writing`."""
    now, found = [0.0], []
    due = resume.Due(clock=lambda: now[0], **named)
    for step in range(1, steps + 1):
        now[0] += seconds
        if due(step):
            found.append(step)
            with due.written():
                now[0] += writing
    return found


def test_a_stop_costs_minutes_where_steps_are_slow():
    assert saved_at(100, 1.0, every=50, alone=True) == [50, 100], "quick steps: as often as was asked"
    assert saved_at(12, 50.0, every=50, alone=True) == [3, 6, 9, 12], "150 s after the last one"
    assert saved_at(12, 50.0, every=50, alone=True, writing=20.0) == [3, 12], "a slow disk: a twentieth of the time"
    assert saved_at(60, 50.0, every=50, alone=False) == [50], "ranks go by steps"
    assert saved_at(12, 50.0, every=0, alone=True) == [], "never is never"
