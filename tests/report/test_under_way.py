"""A run that is not done: its page on the way, stopped, waiting and done, and what the server of `evenhand watch` answers."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from evenhand.report import live
from evenhand.report.page import live_assets
from evenhand.report.summaries import experiment_blocks
from evenhand.report.under_way import _stage, read_under_way
from evenhand.results.files import read_json
from evenhand.run_experiment import execute, prepare
from evenhand.runner.progress import Quiet
from evenhand.runner.state import StageStatus
from evenhand.serve.guard import Guard
from tests.doctor.patients import Ward, pairs
from tests.serving import serving


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    ward = Ward(tmp_path_factory.mktemp("ward"), rows=pairs(40))
    ward.write()
    return ward.experiment | {
        "seeds": [0], "evaluation": {"prompts": 6}, "lengths": {"prompt": 96, "completion": 12},
        "train": {"steps": 4, "prompts_per_step": 4}, "runtime": {"workers": 0, "device": "cpu"},
        "arms": {"base": {"method": "start"}, "dpo": {"method": "dpo"}}, "judge": {"reward": "fair", "self_test": 0},
    }  # fmt: skip


class StopAt(Quiet):
    """Stops the run, as Ctrl-C does, when the stage has got so far; `then` looks first."""

    def __init__(self, name, status, then=lambda: None):
        self.name, self.status, self.then = name, status, then

    def changed(self, cell):
        if cell.node.name == self.name and cell.status is self.status:
            self.then()
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def stopped(experiment, tmp_path_factory):
    """A run that was stopped when DPO had been trained, and what was seen of it at that moment."""
    out, seen = tmp_path_factory.mktemp("stopped") / "run", []
    view = StopAt("arms/dpo/seed-0", StageStatus.DONE, lambda: seen.append(live.Growing(out).state()))
    with pytest.raises(KeyboardInterrupt):
        execute(prepare(experiment, (), out), view=view)
    return out, seen[0]


def test_while_it_works_the_page_says_how_far_it_is_and_no_verdict(stopped):
    _, seen = stopped
    assert (seen["done"], seen["title"]) == (False, "Under way")
    assert seen["foot"].startswith("4 of 9 stages") or " of 9 stages" in seen["foot"]
    assert 'data-alive="1"' in seen["under_way"]


def test_what_a_stage_does_is_said_before_its_figures():
    shown = {"loss": 0.25, "phase": "opens the model"}
    row = {"name": "arms/dpo/seed-0", "status": "running", "share": 0.5, "left": 30, "shown": shown}
    assert _stage(row, True).figures == "50%, 30 s left, opens the model, loss 0.25"


def test_what_says_nothing_of_the_experiment_is_no_part_of_the_page(stopped):
    record = read_json(stopped[0] / "experiment.json")
    assert (record["accelerators"], record["waived"]) == ([], [])
    titles = [block.title for block in experiment_blocks(record)]
    assert titles[:2] == ["Configuration in effect", "Configuration as given"]
    assert not {"Accelerators", "Waived"} & set(titles)


def test_a_stopped_run_has_a_page_with_its_curves(cli, stopped):
    out, _ = stopped
    run, way = read_under_way(out)
    assert (way.alive, way.title) == (False, "Not finished")
    assert [len(rows) for rows in run.curves["dpo"].values()] == [4]
    states = {s.name: s.status for s in way.stages}
    assert states["arms/dpo/seed-0"] == "done"
    assert states["verdicts/dpo/seed-0"] == "queued"
    code, said, err = cli("report", out)
    assert code == 0, err
    assert "The run is not done" in said
    page = (out / "report.html").read_text()
    assert 'id="under-way"' in page
    assert 'id="verdict"' not in page
    assert 'id="figure-curve-accuracy"' in page
    (out / "logs" / "progress.json").rename(out / "logs" / "old.json")
    try:
        assert {s.name: s.status for s in read_under_way(out)[1].stages}["arms/dpo/seed-0"] == "done", "the store says as much"
    finally:
        (out / "logs" / "old.json").rename(out / "logs" / "progress.json")


def test_the_server_shows_it_growing_and_then_the_report(experiment, stopped, tmp_path, monkeypatch):
    out = shutil.copytree(stopped[0], tmp_path / "run", symlinks=True)
    client = TestClient(Guard(live.build(out), "t", live_assets()["policy"]), base_url="http://localhost")
    before = client.get("/t/state").json()
    assert client.get("/t/").text.count('id="under-way"') == 1
    assert client.post("/t/state").status_code == 405, "it only reads"
    monkeypatch.setattr(live, "SPACING", 0.0)
    outcome, _ = execute(prepare(experiment, (), out))
    assert outcome.ok
    after = client.get("/t/state").json()
    assert after["done"]
    assert after["figures"] != before["figures"]
    page = client.get("/t/").text
    assert 'id="verdict"' in page
    assert 'id="under-way"' not in page


def test_half_a_line_of_metrics_is_left_for_the_next_look(stopped):
    out, _ = stopped
    file = next((out / "store").glob("*/metrics.jsonl"))
    copy = file.parent.with_name("0" * 32 + ".partial")
    copy.mkdir()
    (copy / "metrics.jsonl").write_bytes(file.read_bytes()[:-10])
    record = json.loads((out / "experiment.json").read_text())
    record["nodes"].append({"name": "arms/dpo/seed-1", "kind": "fit", "seed": 1, "key": "0" * 32, "inputs": {}})
    kept = (out / "experiment.json").read_text()
    (out / "experiment.json").write_text(json.dumps(record))
    try:
        run, _ = read_under_way(out)
    finally:
        (out / "experiment.json").write_text(kept)
        shutil.rmtree(copy)
    assert len(run.curves["dpo"]["1"]) == len(file.read_text().splitlines()) - 1


def test_in_a_browser_it_asks_how_far_the_run_is(browser, stopped):
    out, _ = stopped
    with serving(live.build(out), live_assets()["policy"]) as address:
        browser.open(address, width=390)
        assert browser.evaluate("document.documentElement.scrollWidth") == 390
        browser.until("performance.getEntriesByType('resource').some(e => e.name.endsWith('/state'))")
        assert browser.problems() == []
