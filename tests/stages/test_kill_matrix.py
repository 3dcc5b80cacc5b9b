"""The kill matrix as a test of the slow lane; `python -m tests.stages.kill_matrix` is the same as a command."""

from __future__ import annotations

import pytest

from tests.stages.kill_matrix import matrix


@pytest.mark.slow
def test_kills_and_damage_change_no_byte(tmp_path):
    found = matrix(200, folder=tmp_path, out=tmp_path / "figures.json")
    assert found.killed >= 200
    assert found.files > 0
    assert found.differing == []
