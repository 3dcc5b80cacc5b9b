"""A run's paths mean the same, whichever folder the next command about it is given in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evenhand.cli.files import where_begun
from evenhand.configfile.begun import begun_in
from evenhand.errors import UserError
from evenhand.results.files import write_record
from evenhand.run_experiment import prepare, record

EXPERIMENT = {
    "name": "placed", "data": {"preferences": "pairs.jsonl", "holdout": 0.5}, "model": {"path": "model"},
    "initial_policy": "base", "train": {"steps": 1}, "arms": {"start": {"method": "start"}, "dpo": {"method": "dpo"}},
    "judge": {"reward": {"kind": "length", "unit": "words"}, "self_test": 0},
}  # fmt: skip
ROWS = '{"prompt": "%d", "chosen": "yes", "rejected": "no"}\n'


def keys(experiment: object) -> dict[str, str]:
    return {node.name: node.key for node in prepare(experiment).plan.nodes}  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory that was begun in `begun`, beside files of the same names elsewhere."""
    for name, first in (("begun", 0), ("elsewhere", 50)):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").write_text("{}")
        (tmp_path / name / "model" / "model.safetensors").write_text("{}")
        (tmp_path / name / "pairs.jsonl").write_text("".join(ROWS % (first + i) for i in range(8)))
    monkeypatch.chdir(tmp_path / "begun")
    prepared = prepare(EXPERIMENT)
    prepared.out.mkdir(parents=True)
    write_record(prepared.out / "experiment.json", record(prepared))
    return (tmp_path / "begun" / prepared.out).resolve()


def test_elsewhere_the_command_goes_where_the_run_was_begun(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = keys(str(run))
    assert begun_in(str(run)) is None
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert keys(EXPERIMENT) != first, "files of the same names, with other rows"
    with pytest.raises(UserError, match="the paths of this run are meant from another folder") as told:
        prepare(str(run))
    assert told.value.fix.endswith(f"cd {tmp_path / 'begun'}")
    experiment, out = where_begun("../begun/runs/placed", Path("there"))
    assert Path.cwd() == tmp_path / "begun"
    assert out == tmp_path / "elsewhere" / "there"
    assert keys(experiment) == first


def test_one_that_was_moved_with_its_files_was_begun_there(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = keys(str(run))
    (tmp_path / "begun").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    experiment, _ = where_begun("moved/runs/placed", None)
    assert Path.cwd() == tmp_path / "moved"
    assert keys(experiment) == first
    assert str(tmp_path) not in (tmp_path / "moved/runs/placed/experiment.json").read_text()


def test_asking_imports_nothing_large(run: Path) -> None:
    """It comes before what a command remembers, which is shown within a second."""
    asked = f"import sys; from evenhand.cli.files import where_begun; where_begun({str(run)!r}, None)"
    told = f"{asked}; print([name for name in ('torch', 'transformers', 'evenhand.plan.plan') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout == "[]\n"
