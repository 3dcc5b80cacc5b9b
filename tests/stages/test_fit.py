"""What a kill during the last seconds of a training stage leaves behind."""

from evenhand.stages import fit
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
