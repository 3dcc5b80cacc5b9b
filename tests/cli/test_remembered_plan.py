"""A plan of which all is there is said again without being made, and made again when anything it hangs on has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evenhand.cli import remembered_plan
from evenhand.cli.remembered_plan import PlanText, question, recall, remember, watching
from evenhand.store.store import Store

TEXT = PlanText("2 nodes, 2 cached, 0 to run", (("sft", "fit", "cached", "", "", "3 steps", "aaaaaaaa"),), ("a line",))
KEYS = ("aa" * 16, "bb" * 16)


def settled(path: Path, text: str = "rows") -> Path:
    """A file that was written some time ago."""
    path.write_text(text)
    os.utime(path, (1e9, 1e9))
    return path


@pytest.fixture
def planned(tmp_path, monkeypatch) -> Any:
    """A run of two stages that are there, on a file that the experiment names, and one that was opened."""
    monkeypatch.setenv("EVENHAND_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store", reserve=0)
    for key in KEYS:
        with store.open(key, {}):
            pass
    nodes = [SimpleNamespace(key=key, spec={"path": "rows.jsonl"}) for key in KEYS]
    settled(tmp_path / "rows.jsonl")
    return SimpleNamespace(
        loaded=SimpleNamespace(effective={"data": {"preferences": "rows.jsonl"}, "name": "some", "model": {"path": None}}),
        plan=SimpleNamespace(nodes=nodes, plugins=()), store=store, out=tmp_path / "out",
        opened=[str(settled(tmp_path / "experiment.yaml")), str(tmp_path / "not_there.yaml")],
    )  # fmt: skip


def kept(planned: Any) -> PlanText | None:
    asked = question("experiment.yaml", [], None)
    remember(asked, planned, TEXT, planned.opened)
    return recall(asked)


def test_what_was_said_is_said_again(planned):
    assert recall(question("experiment.yaml", [], None)) is None
    assert kept(planned) == TEXT


@pytest.mark.parametrize(
    "asked", [("experiment.yaml", ["seeds=[0]"], None), ("experiment.yaml", [], Path("x")), ("other", [], None)]
)
def test_another_command_is_another_question(planned, asked):
    assert kept(planned) == TEXT
    assert recall(question(*asked)) is None


def test_the_environment_the_folder_and_the_package_are_part_of_it(planned, monkeypatch, tmp_path):
    before = question("experiment.yaml", [], None)
    monkeypatch.setenv("EVENHAND_STORE", "/elsewhere")
    assert question("experiment.yaml", [], None) != before
    monkeypatch.delenv("EVENHAND_STORE")
    assert question("experiment.yaml", [], None) == before
    monkeypatch.setattr(remembered_plan, "installed", lambda: [["a file", [1, 2, 3]]])
    assert question("experiment.yaml", [], None) != before
    monkeypatch.undo()
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    assert question("experiment.yaml", [], None) != before


@pytest.mark.parametrize("name", ["rows.jsonl", "experiment.yaml", "not_there.yaml"])
def test_a_file_that_changes_or_appears_makes_it_anew(planned, tmp_path, name):
    assert kept(planned) == TEXT
    settled(tmp_path / name, "rows, and more")
    assert recall(question("experiment.yaml", [], None)) is None


def test_a_place_that_can_no_longer_be_written_to_makes_it_anew(planned, monkeypatch):
    assert kept(planned) == TEXT
    refused = []

    def full(path):
        refused.append(path)
        return "No space left on device" if path == planned.out.absolute() else ""

    monkeypatch.setattr(remembered_plan, "unwritable", full)
    assert recall(question("experiment.yaml", [], None)) is None
    assert refused


def test_an_artifact_that_is_gone_makes_it_anew(planned):
    assert kept(planned) == TEXT
    planned.store.discard(KEYS[1])
    assert recall(question("experiment.yaml", [], None)) is None


@pytest.mark.parametrize(
    "effective",
    [
        {"model": {"path": "org/name"}},
        {"arms": {"dpo": {"reward": {"kind": "function", "path": "rows.jsonl"}}}},
        {"plugins": ["mine.py"]},
        {"model": {"path": None, "revision": "0ab1"}},
    ],
)
def test_what_can_change_unseen_is_not_remembered(planned, effective):
    planned.loaded.effective = effective
    assert kept(planned) is None


def test_nor_is_what_is_not_all_there_or_was_just_written(planned, tmp_path):
    (tmp_path / "rows.jsonl").write_text("new")
    assert kept(planned) is None
    settled(tmp_path / "rows.jsonl")
    planned.store.discard(KEYS[0])
    assert kept(planned) is None


def test_a_record_that_is_none_is_no_answer(planned, tmp_path):
    asked = question("experiment.yaml", [], None)
    for text in ("", "[]", '{"store": 3, "keys": [], "files": {}, "text": {}}'):
        (tmp_path / "cache" / "plans").mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / "plans" / f"{asked}.json").write_text(text)
        assert recall(asked) is None


def test_files_are_seen_as_they_are_opened(tmp_path):
    settled(tmp_path / "one")
    with watching() as opened:
        (tmp_path / "one").read_text()
    (tmp_path / "one").read_text()
    assert opened.count(str(tmp_path / "one")) == 1


def test_a_folder_that_an_import_brings_is_not_part_of_it(tmp_path, monkeypatch):
    """setuptools puts what it carries along on the path when it is imported; packages lie elsewhere."""
    before = question("experiment.yaml", [], None)
    (tmp_path / "carried" / "packaging-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "site-packages" / "more-1.0.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "carried"))
    assert question("experiment.yaml", [], None) == before
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    assert question("experiment.yaml", [], None) != before


def test_recalling_imports_nothing_heavy(planned):
    assert kept(planned) == TEXT
    program = (
        "import sys; from evenhand.cli.remembered_plan import question, recall;"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic', 'datasets', 'yaml', 'jinja2'};"
        "found = recall(question('experiment.yaml', [], None)); print(found.title, sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{TEXT.title} []"


def test_the_command_plans_once(planned, cli, monkeypatch):
    """The second time nothing is prepared, and the words are the same."""
    from evenhand import run_experiment
    from evenhand.plan.costs.forecast import PlanCosts, StageForecast

    nodes = [
        SimpleNamespace(key=key, spec={}, name=name, kind="fit", cost="3 steps")
        for key, name in zip(KEYS, ("sft", "dpo"), strict=True)
    ]
    planned.plan.nodes, planned.loaded.value = nodes, None
    asked = []
    monkeypatch.setattr(run_experiment, "prepare", lambda *given: asked.append(given) or planned)
    monkeypatch.setattr("evenhand.cli.experiments.look", lambda prepared, console: True)
    monkeypatch.setattr("evenhand.plan.parameter_count.lines", lambda experiment: ["a line below"])
    costs = PlanCosts(stages=tuple(StageForecast(node=n.name) for n in nodes))
    monkeypatch.setattr("evenhand.cli.experiments.costs_of", lambda run, **k: costs)
    first, second = (cli("run", "experiment.yaml", "--plan") for _ in range(2))
    assert len(asked) == 1
    assert first == second
    assert first[0] == 0
    assert "2 nodes, 2 cached, 0 to run" in first[1]
    assert "a line below" in first[1]
    cli("run", "experiment.yaml", "--plan", "--probe")
    assert len(asked) == 2, "asked to measure, it plans"
