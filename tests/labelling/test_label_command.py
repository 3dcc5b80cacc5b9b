"""`evenhand label` for people, as it is typed: what is asked, where clicks go, what comes out. A client answers the page."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from evenhand.judges.label_log import LabelLog
from evenhand.run_experiment import execute, prepare
from evenhand.store.locks import locked
from tests.doctor.patients import Ward, pairs

ROWS = [{"prompt": f"question {i}", "completions": [f"good {i}", f"bad {i}", f"fair {i}"]} for i in range(5)]


@pytest.fixture
def answers(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def people(monkeypatch):
    """In place of the server: ann answers `count` items, the first answer being better; `seen` has what was asked."""
    seen = []

    def serve(app, policy, *, port):
        client = TestClient(app)
        page = client.get("/").text
        assert "script-src" in policy
        task = client.post("/next", json={"annotator": "ann"}).json()["task"]
        for _ in range(serve.count):
            if task is None:
                break
            seen.append((task, page))
            said = {"annotator": "ann", "item": task["item"], "answers": task["answers"]} | serve.says(task)
            task = client.post("/answer", json=said).json()["task"]

    serve.count, serve.says = 3, lambda task: {"label": "first"}
    serve.seen = seen
    monkeypatch.setattr("evenhand.cli.label_people.serve", serve)
    return serve


def test_pairs_of_a_file(cli, answers, tmp_path, people):
    out = tmp_path / "pairs.jsonl"
    (tmp_path / "guide.md").write_text("Be <b>fair</b>.")
    code, said, err = cli("label", answers, "--out", out, "--guidelines", tmp_path / "guide.md", "--again", 0)
    assert code == 0, err
    assert "5 items" in said
    assert "3 labels by 1 person on 3 of 5 items" in said
    assert "left out: 2 not labelled" in said
    assert "Be &lt;b&gt;fair&lt;/b&gt;." in people.seen[0][1]
    first = {task["prompt"][0]["text"]: task["texts"][0] for task, _ in people.seen}
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    best = {r["prompt"]: max(zip(r["scores"], r["completions"], strict=True), key=lambda x: x[0])[1]["content"] for r in rows}
    assert best == first
    people.count = 0
    out.unlink()
    code, said, err = cli("label", answers, "--out", out, "--again", 0)
    assert code == 0, err
    assert len(out.read_text().splitlines()) == 3, "a kill before the end loses nothing: the next start writes it"
    code, said, err = cli(
        "judge", tmp_path / "pairs.annotators.jsonl", "--judge", "{kind: length, unit: words}", "--out", tmp_path / "j"
    )
    assert code == 0, err


def test_ratings_of_all_answers(cli, answers, tmp_path, people):
    people.says = lambda task: {"label": "rating", "values": [5 if t.startswith("good") else 2 for t in task["texts"]]}
    code, _, err = cli("label", answers, "--out", tmp_path / "rated.jsonl", "--form", "rating", "--people", 0)
    assert code == 0, err
    (row, *_) = [json.loads(line) for line in (tmp_path / "rated.jsonl").read_text().splitlines()]
    assert sorted(row["scores"]) == [2.0, 2.0, 5.0]


def test_what_cannot_be_asked_is_said(cli, answers, tmp_path, people):
    for options, message in (
        ((), "nowhere to write"), (("--out", answers), "this file is what is read"),
        (("--out", tmp_path / "o.jsonl", "--pairs", "best-worst"), "who is best is what people are asked"),
    ):  # fmt: skip
        code, _, err = cli("label", answers, *options)
        assert (code, message in err) == (2, True), err
    (tmp_path / "guide.md").write_bytes("höflich".encode("latin-1"))
    code, _, err = cli("label", answers, "--out", tmp_path / "o.jsonl", "--guidelines", tmp_path / "guide.md")
    assert (code, "guide.md: is not UTF-8 text" in err) == (2, True), err
    with locked(tmp_path / ".o.jsonl.labels.lock"):
        code, _, err = cli("label", answers, "--out", tmp_path / "o.jsonl")
    assert code == 2
    assert "another page writes this file" in err


def test_a_finished_run_is_labelled_blind_and_judged_by_it(cli, tmp_path, people):
    ward = Ward(tmp_path, rows=pairs(40))
    ward.write()
    ward.experiment |= {
        "seeds": [0], "evaluation": {"prompts": 6}, "lengths": {"prompt": 96, "completion": 12},
        "train": {"steps": 4, "prompts_per_step": 4, "learning_rate": 0.1}, "runtime": {"workers": 0, "device": "cpu"},
        "arms": {"base": {"method": "start"}, "dpo": {"method": "dpo"}}, "judge": {"reward": "fair", "self_test": 0},
    }  # fmt: skip
    run = tmp_path / "run"
    assert execute(prepare(ward.experiment, (), run))[0].ok
    people.count = 100
    code, _, err = cli("label", run)
    assert code == 0, err
    log = LabelLog(run / "human-labels.jsonl")
    assert len(log.labels) >= 1
    assert "dpo" not in json.dumps([task for task, _ in people.seen]), "whose an answer is, is nowhere on the page"
    judged = ("judge", run, "--judge", f"{{kind: human, labels: {run / 'human-labels.jsonl'}}}", "--out", tmp_path / "judged")
    code, _, err = cli(*judged)
    assert code == 0, err
    assert json.loads((tmp_path / "judged" / "summary.json").read_text())["judge"]
    log.undo("ann")
    code, _, err = cli(*judged)
    assert code == 4
    assert "wait to be labelled" in err
