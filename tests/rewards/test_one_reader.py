"""One reader for one reward model: whoever scores, and whatever tokenizer sampled, the score is transformers' own of the text."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import evenhand
from evenhand.cli.evaluate import _scorer
from evenhand.cli.judge import open_judge
from evenhand.cli.scores import scorer
from evenhand.doctor.context import CheckContext
from evenhand.judges.verdict import Comparison
from evenhand.run_experiment import prepare
from evenhand.stages.common import build_reward
from evenhand.types import Group
from tests.doctor.patients import TEMPLATE, Ward, byte_tokenizer
from tests.rewards.test_external import sampled
from tests.stages.test_adopt import SETUP, adopted, logit

ASKED, ANSWERS = "How far is the moon?", ("It is far away.", "No.")
LINE_BEHIND = TEMPLATE.replace("'<|end|>'", "'<|end|>\n'")
"""A template that goes on behind an answer: a score that is read where the sampled ids end would be another one."""
SRC = Path(evenhand.__file__).parent


@pytest.fixture(scope="module")
def ward(tmp_path_factory) -> Ward:
    """An experiment whose policy has bytes as tokens, with a reward model of the same kind but another template."""
    ward = Ward(tmp_path_factory.mktemp("ward"))
    ward.classifier(byte_tokenizer(LINE_BEHIND))
    return ward


def by_score(ward: Ward, groups: Sequence[Group]) -> list[float]:
    """evenhand score ANSWERS --by FOLDER"""
    return list(scorer(str(ward.folder / "rm"), "cpu")(groups)[0].values)


def by_judge(ward: Ward, groups: Sequence[Group]) -> list[float]:
    """evenhand judge A B --judge FOLDER"""
    judge = open_judge(str(ward.folder / "rm"), {}, ward.folder / "cache")
    (verdict,) = judge([Comparison(prompt=g.prompt, a=g.completions[0], b=g.completions[1]) for g in groups])
    return [verdict.score_a, verdict.score_b]


def by_evaluate(ward: Ward, groups: Sequence[Group]) -> list[float]:
    """evenhand evaluate MODEL --pairs FILE --against FOLDER"""
    return list(_scorer(str(ward.folder / "rm"), "cpu")(groups)[0].values)


def by_a_run(ward: Ward, groups: Sequence[Group]) -> list[float]:
    """What trains, judges and chooses the best of n in a run."""
    artifact = adopted(ward.folder / "rm", ward.folder / "adopted")
    return list(build_reward({"kind": "model", "name": "rm"}, {"reward_models/rm": artifact}, SETUP, "cpu")(groups)[0].values)


def by_the_doctor(ward: Ward, groups: Sequence[Group]) -> list[float]:
    """evenhand doctor EXPERIMENT"""
    patient = CheckContext(prepare(str(ward.write()), [], ward.folder / "out"), quick=False)
    return list(patient.adopted["rm"].reward(groups)[0].values)


@pytest.mark.parametrize("way", [by_score, by_judge, by_evaluate, by_a_run, by_the_doctor], ids=lambda way: way.__name__)
def test_the_score_is_that_of_the_whole_text(way: Callable[[Ward, Sequence[Group]], list[float]], ward: Ward) -> None:
    found = way(ward, [sampled(ASKED, *ANSWERS)])
    expected = [logit(ward.folder / "rm", ASKED, text, closed=True) for text in ANSWERS]
    assert found == pytest.approx(expected, abs=1e-5)
    elsewhere = [logit(ward.folder / "rm", ASKED, text, closed="<|end|>") for text in ANSWERS]
    assert found != pytest.approx(elsewhere, abs=1e-4), "at the answer's own end"


def test_nobody_else_opens_a_reward_model() -> None:
    """Places that open one: the two readers above, what writes its network out and what checks that export against its own
    weights, and what trains a gate on one that was trained here."""
    openers = {
        path.relative_to(SRC).as_posix()
        for path in SRC.rglob("*.py")
        if "load_reward_model" in (text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "load_reward_model"
    }
    assert openers == {
        "stages/common.py", "cli/scores.py", "export/folder.py", "export/check_scores.py", "stages/reward_models.py",
    }  # fmt: skip
