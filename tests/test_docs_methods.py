"""The pages on methods say what the code does: generated, executed, or checked."""

from __future__ import annotations

import re

import pytest

from evenhand import methods
from evenhand.manual import methods as page_of_methods
from tests.conftest import ROOT

DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_every_entry_is_complete(name):
    entry = page_of_methods.entry(name)
    for key in ("source", "signal", "credit", "objective", "reference", "needs", "settings", "learning rate"):
        assert re.search(rf"^- \*\*{key}\*\*: \S", entry, re.MULTILINE), f"{name} says nothing of {key}"
    assert "`" in next(line for line in entry.splitlines() if line.startswith("- **objective**")), "an equation"
    assert re.search(r"\b(19|20)\d\d\b|Likelihood|maximum likelihood|authors|ORPO|reference", entry), "a source"


def test_reductions_name_methods_or_are_plain_words():
    for name, function in methods.METHODS.items():
        for named in re.findall(r"`(\w+)`", page_of_methods.paragraphs(function)[1]):
            assert named in methods.METHODS, f"{name} reduces to '{named}'"


def test_what_the_kl_page_says_of_the_reward_side():
    """`kl` of these methods is in the reward; of GRPO it is in the loss, k3 unless said otherwise."""
    build = lambda name, **p: methods.build(name, p, steps=10, max_tokens=8)  # noqa: E731
    for name in ("rloo", "reinforce", "rank_advantage", "ppo"):
        made = build(name, kl=0.3)
        assert made.rollouts.kl.coefficient == 0.3
        assert made.objective.kl == 0.0
    assert (build("grpo").objective.kl_estimator, build("grpo", kl_estimator="k2").objective.kl_estimator) == ("k3", "k2")
    assert build("grpo").rollouts.kl.coefficient == 0.0
