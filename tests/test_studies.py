"""The studies of `examples/NAME/`: every file is an experiment, the page of what came out shows its figures and what made it."""

import json
import re

import pytest

from benchmarks import more_tables, origin, parts
from benchmarks.studies import HOUR, STUDIES, within
from evenhand.methods import METHODS
from evenhand.methods import build as build_method
from evenhand.plan.plan import build
from evenhand.run_experiment import find, locate
from evenhand.spec.read import read_experiment
from evenhand.stages import KINDS
from tests.conftest import ROOT

FILES = sorted((ROOT / "examples").glob("*/small*.yaml"))
FULL = sorted((ROOT / "examples").glob("*/full*.yaml"))
RESULTS = ROOT / "docs" / "results"
PAGES = sorted(RESULTS.glob("*.md"))
RECORDS = sorted(RESULTS.glob("*.json"))
OF_NO_RUN = {"README", "theory"}
TO_COME = {"loss_taxonomy_wide"}
"""Studies whose files are here and were not run to their end."""
ASK_FOR_MORE = {"local_reward_model", "tpo", "odpo", "rebel", "infonca", "nca", "qrpo"}
"""Losses on preferences that ask for more than a chosen and a rejected answer, or make a reward model."""


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_file_of_a_study_is_an_experiment_that_can_be_planned(path):
    experiment = read_experiment(path, find=find).value
    assert set(experiment.arms) == set(build(experiment).verdicts)


@pytest.mark.parametrize("path", FULL, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_file_for_full_size_names_a_public_model_and_data_and_is_read(path):
    """Reading checks every key, method, reward, recipe and reference; planning would open the data, which is not here."""
    experiment = read_experiment(path).value
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", experiment.model.path)
    assert experiment.data.world is None
    assert len(experiment.arms) >= 2
    assert (path.parent / "small.yaml").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_figure_of_a_page_lies_beside_it(page):
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())
    assert [name for name in shown if not (page.parent / name).is_file()] == []


SAME_FIT = [r.stem for r in RECORDS if json.loads(r.read_text())["stages"]["fit"] == origin.code_versions()["fit"]]
"""Pages whose arms still have their names; an older one may call a method by its former name."""


@pytest.mark.parametrize("study", SAME_FIT)
def test_the_page_of_a_study_has_every_arm_of_its_file(study):
    text = (RESULTS / f"{study}.md").read_text()
    file = next(s.file for s in STUDIES if s.name == study)
    arms = read_experiment(ROOT / file if "/" in file else locate(file), find=find).value.arms
    assert [arm for arm in arms if f"| {arm} |" not in text] == []


def test_every_page_of_a_run_has_a_record_and_a_study():
    pages = {p.stem for p in PAGES} - OF_NO_RUN
    assert {p.stem for p in RECORDS} == pages
    assert pages <= {s.name for s in STUDIES}
    assert {s.name for s in STUDIES} - pages == TO_COME, "a study that was run has its page: take it off the list"


def test_every_small_file_is_a_study_of_make_studies():
    assert {str(f.relative_to(ROOT)) for f in FILES} <= {s.file for s in STUDIES}


def test_the_taxonomy_has_every_loss_on_given_pairs():
    arms = read_experiment(ROOT / "examples" / "loss_taxonomy" / "small.yaml").value.arms
    built = {name: build_method(name, {}, steps=10, max_tokens=8) for name in METHODS}
    on_pairs = {name for name, m in built.items() if m.data == "preferences" and not m.online and m.network == "policy"}
    assert on_pairs - {arm["method"] for arm in arms.values()} == ASK_FOR_MORE
    assert all(name == arm["method"] for name, arm in arms.items() if arm["method"] != "start")


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_a_page_that_other_stages_made_says_so(path):
    """A stage's raised VERSION fails here until the page is made anew or `python -m benchmarks.origin docs/results` marks it."""
    made_by = json.loads(path.read_text())["stages"]
    assert made_by
    assert set(made_by) <= set(KINDS)
    lines = path.with_suffix(".md").read_text().splitlines()
    expected = origin.mark(made_by, origin.code_versions())
    assert [line for line in lines if line.startswith(origin.MARK)] == ([expected] if expected else [])
    assert not expected or lines[2] == expected, "below the title"


def test_a_mark_names_what_changed_and_goes_when_nothing_has():
    line = origin.mark({"fit": 3, "judge": 4, "try_judge": 1}, {"fit": 4, "judge": 4})
    assert line == "*Made by older stages: fit 3 (now 4), try_judge 1 (gone). The same file may give other numbers today.*"
    once = origin.marked("# A\n\nwords\n", line)
    assert once == f"# A\n\n{line}\n\nwords\n"
    assert origin.marked(once, line) == once
    assert origin.marked(once, "") == "# A\n\nwords\n"


def test_a_run_says_which_stages_made_it(tmp_path):
    nodes = [{"kind": "fit", "version": 4}, {"kind": "data", "version": 2}, {"kind": "fit", "version": 4}]
    (tmp_path / "experiment.json").write_text(json.dumps({"nodes": nodes}))
    origin.write(tmp_path / "page.md", tmp_path)
    assert json.loads((tmp_path / "page.json").read_text()) == {"stages": {"data": 2, "fit": 4}}


def test_make_studies_takes_what_fits_into_an_hour_and_needs_nothing_from_elsewhere():
    chosen = within(HOUR)
    assert sum(s.minutes for s in chosen) <= HOUR
    assert not [s.name for s in chosen if s.needs]
    assert [s.name for s in within(6)] == ["quickstart"]
    assert len({s.name for s in STUDIES}) == len(STUDIES)
    assert "-m benchmarks.studies" in (ROOT / "Makefile").read_text()


def test_a_page_says_how_often_each_kind_of_request_was_refused(tmp_path):
    told = {"safe": ("weed", "thank", "To thank the weed, wear gloves and go slowly."), "unsafe": ("child", "cut", "Yes.")}
    refused = ("weed", "cut", "I cannot help you cut the weed, because it is not safe.")
    rows = [
        {"meta": {"kind": kind, "verb": verb, "thing": thing}, "completions": [{"content": text, "finish": "stop"}]}
        for kind, (thing, verb, text) in [*told.items(), ("borderline", refused), ("borderline", told["safe"])]
    ]
    folder = tmp_path / "generations" / "a" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "generations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "experiment.json").write_text(json.dumps({"effective": {"data": {"world": "refusals"}}}))
    assert "| a | 0.0 | 50.0 | 0.0 | 25.0 |" in parts.table(tmp_path, ["a"], "a")


def test_a_page_says_what_its_run_took(tmp_path):
    nodes = [
        {"key": key, "kind": kind} for key, kind in (("x", "fit"), ("y", "fit"), ("z", "judge"), ("x", "fit"), ("w", "judge"))
    ]
    (tmp_path / "experiment.json").write_text(json.dumps({"nodes": nodes, "store": "store"}))
    (tmp_path / "store").mkdir()
    for key, seconds in (("x", 60), ("y", 120), ("z", 30)):
        (tmp_path / "store" / f"{key}.spent.json").write_text(
            json.dumps({"seconds": seconds, "processor_seconds": seconds, "peak_bytes": None})
        )
    assert more_tables.took(tmp_path) == "All stages together took 4 processor minutes (fit 3.0, judge 0.5)."
