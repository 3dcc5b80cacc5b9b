"""The package as others get it: what is stated agrees, and the wheel works without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import evenhand
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SRC = ROOT / "src" / "evenhand"


def test_the_version_is_said_once_and_the_same():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == evenhand.__version__ == citation["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_extra_is_used():
    """By an import, or in the words of an error that names it."""
    text = "".join(p.read_text() for p in [*SRC.rglob("*.py"), ROOT / "Makefile", ROOT / "pyproject.toml"])
    for extra in PROJECT["optional-dependencies"].keys() - {"dev"}:
        assert f"evenhand[{extra}]" in text or f".[{extra}]" in text, f"nothing asks for the extra '{extra}'"


def test_help_and_import_load_nothing_heavy():
    """What takes long is what is imported: without torch, pandas and matplotlib both take a fraction of a second."""
    heavy = {"torch", "numpy", "pandas", "jinja2", "fastapi"}
    code = f"import sys, evenhand, evenhand.cli; print(sorted(sys.modules.keys() & {heavy}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.slow
def test_sdist_and_wheel_are_built_and_the_wheel_works_alone(tmp_path: Path):
    """Built from the sdist, unpacked where nothing of the repository is, and run."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    pytest.importorskip("build")
    subprocess.run([sys.executable, "-m", "build", "-o", str(tmp_path / "dist"), str(ROOT)], check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert len(list((tmp_path / "dist").glob("*.tar.gz"))) == 1
    inside = set(zipfile.ZipFile(wheel).namelist())
    data = {f"evenhand/{p.relative_to(SRC)}" for p in SRC.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert not {name for name in data if name not in inside}, "files that the wheel lacks"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)], check=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(tmp_path / "site")}
    where = "import evenhand; print(evenhand.__file__)"
    (tmp_path / "empty").mkdir()
    for command in (
        ["-c", where],
        ["-m", "evenhand.cli", "run", "quickstart", "--plan", "--unchecked"],
        ["-m", "evenhand.cli", "env"],
    ):
        ran = subprocess.run(
            [sys.executable, *command], cwd=tmp_path / "empty", env=environment, capture_output=True, text=True, check=True
        )
        assert ran.stdout.strip()
        if command[0] == "-c":
            assert Path(ran.stdout.strip()).is_relative_to(tmp_path / "site")
