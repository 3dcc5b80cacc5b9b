"""The studies of `examples/NAME/`: every file is an experiment, and the page of what came out shows its figures."""

import re

import pytest

from evenhand.plan.plan import build
from evenhand.spec.read import read_experiment
from tests.conftest import ROOT

FILES = sorted((ROOT / "examples").glob("*/*.yaml"))
PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_file_of_a_study_is_an_experiment_that_can_be_planned(path):
    experiment = read_experiment(path).value
    assert set(experiment.arms) == set(build(experiment).verdicts)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_figure_of_a_page_lies_beside_it(page):
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())
    assert [name for name in shown if not (page.parent / name).is_file()] == []


@pytest.mark.parametrize("study", ["all_roads", "real_instruct"])
def test_the_page_of_a_study_has_every_arm_of_its_file(study):
    text = (ROOT / "docs" / "results" / f"{study}.md").read_text()
    arms = read_experiment(ROOT / "examples" / study / "small.yaml").value.arms
    assert [arm for arm in arms if f"| {arm} |" not in text] == []
