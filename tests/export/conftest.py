"""One tiny finished run for all tests of this folder; those that change it take a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.export.tiny_run import write_run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be read only."""
    return write_run(tmp_path_factory.mktemp("export") / "run")


@pytest.fixture
def own_run(tiny: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(tiny, tmp_path / "run"))
