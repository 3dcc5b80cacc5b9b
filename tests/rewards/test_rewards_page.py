"""Every example of docs/reward_models.md is an experiment without a fault, but for the models that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from evenhand.spec.checks import problems
from evenhand.spec.read import read_experiment

PAGE = (Path(__file__).parents[2] / "docs" / "reward_models.md").read_text()
EXAMPLES = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
BASE = {
    "name": "page", "data": {"world": "quickstart"}, "model": {"pretrain": {"documents": 8, "train": {"steps": 1}}},
    "train": {"steps": 2}, "arms": {"start": {"method": "start"}},
}  # fmt: skip


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: "+".join(e))
def test_an_example_has_no_fault(example, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    assert len(EXAMPLES) >= 3
    recipes = example.get("reward_models", {})
    trained = {n: {**r, "train": {"steps": 1}} if "path" not in r else r for n, r in recipes.items()}
    arms = {**BASE["arms"], **example.get("arms", {})}
    e = read_experiment({**BASE, **example, "reward_models": trained, "arms": arms}).value
    assert [str(error) for error in problems(e)] == []
