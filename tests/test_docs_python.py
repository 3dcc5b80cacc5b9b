"""The page and the notebook on Python run from top to bottom, and what they return is what the run directory holds."""

from __future__ import annotations

import ast
import csv
import json
import multiprocessing
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import evenhand
from evenhand.errors import UserError
from tests.conftest import ROOT

NOTEBOOK = ROOT / "examples" / "compare_in_python.ipynb"


def shown(source: str, namespace: dict[str, Any]) -> Any:
    """Executes a cell in `namespace`; the value of its last line, if that is an expression, as a notebook would show it."""
    body = ast.parse(source).body
    last = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), namespace)
    return eval(compile(last, "cell", "eval"), namespace) if last is not None else None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("python")


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One folder and one store for all: what the notebook has computed, the page finds."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("EVENHAND_STORE", str(place / "store"))
    return place


@pytest.fixture
def run(here: Path) -> Path:
    """The run of the notebook."""
    cells = ["".join(c["source"]) for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]
    if not (here / "runs" / "in_python").exists():
        shown(cells[0], {})
    return here / "runs" / "in_python"


def test_the_notebook_runs(run: Path) -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(c.get("outputs") for c in cells), "it is kept without outputs"
    namespace: dict[str, Any] = {}
    values = [shown("".join(c["source"]), namespace) for c in cells if c["cell_type"] == "code"]
    assert "<table" in values[0]._repr_html_()
    assert any("<svg" in v._repr_svg_() for v in values if hasattr(v, "_repr_svg_"))
    assert (run / "report.html").exists()


def test_the_page_runs(run: Path) -> None:
    namespace: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(blocks) >= 6
    for block in blocks:
        exec(block, namespace)
    assert Path("win_rates.svg").read_text().count("<svg") == 1


def test_frames_hold_what_the_files_hold(run: Path) -> None:
    results = evenhand.load(run)
    results.report()
    with open(run / "results.csv") as file:
        rows = {row["arm"]: row for row in csv.DictReader(file)}
    frame = results.frame()
    assert list(frame.index) == list(rows) == ["sft", "dpo"]
    assert list(frame.columns) == list(rows["dpo"])[1:]
    assert frame.loc["dpo", "win_rate"] == results.arms["dpo"].win_rate
    assert f"{frame.loc['dpo', 'win_rate']:.6g}" == rows["dpo"]["win_rate"]
    pairs = results.contrasts_frame()
    assert pairs.loc[("dpo", "sft"), "difference"] == -pairs.loc[("sft", "dpo"), "difference"]
    steps = results.metrics_frame()
    assert set(zip(steps["arm"], steps["seed"], steps["step"], strict=True)) == {("dpo", s, t) for s in (0, 1) for t in (1, 2)}
    recorded = json.loads((run / "arms/dpo/seed-1/metrics.jsonl").read_text().splitlines()[0])
    assert steps.query("seed == 1 and step == 1")["loss"].item() == recorded["loss"]


def test_what_is_not_there_is_refused_with_a_way_out(run: Path) -> None:
    results = evenhand.load(run)
    with pytest.raises(UserError, match="no figure is called 'win_rate'") as caught:
        results.plot("win_rate")
    assert "win_rates" in caught.value.fix
    with pytest.raises(UserError, match="recorded nothing for 'length_grid'"):
        results.plot("length_grid")
    with pytest.raises(UserError, match=r"'\.png' is no kind of figure"):
        results.plot("win_rates").save("x.png")
    with pytest.raises(UserError, match="unknown key 'stpes'"):
        evenhand.run(run, {"train.stpes": 3}, workers=0, quiet=True)


def test_checks_come_first_and_a_worker_that_imports_the_script_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So small a run is full of warnings, which are warnings of Python's too; nothing in it is computed anew."""
    with pytest.warns(UserWarning, match=r"^D\d+: "):
        assert evenhand.run(run, out=run, workers=0, quiet=True) == evenhand.load(run)
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(UserError, match="by a worker that was importing the script"):
        evenhand.run(run)


def test_importing_evenhand_imports_nothing_else() -> None:
    code = (
        "import sys, evenhand; print([m for m in sys.modules if m.startswith('evenhand')]); evenhand.load; print(dir(evenhand))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert out[0] == "['evenhand']"
    assert "run" in out[1]
    with pytest.raises(AttributeError):
        _ = evenhand.train_a_model
