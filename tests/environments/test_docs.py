"""docs/environments.md: its snippet runs as it stands, and its example is an experiment that can be planned."""

from __future__ import annotations

import doctest
import re

from evenhand.environments.registry import ENVIRONMENTS, TurnLimits
from evenhand.plan.plan import build
from evenhand.spec.read import read_experiment
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "environments.md").read_text()


def test_the_snippet_runs():
    (text,) = re.findall(r"```pycon\n(.*?)```", PAGE, re.DOTALL)
    case = doctest.DocTestParser().get_doctest(text, {"__name__": "__main__"}, "environments.md", None, 0)
    try:
        told: list[str] = []
        assert doctest.DocTestRunner().run(case, out=told.append).failed == 0, "".join(told)
    finally:
        ENVIRONMENTS.entries.pop("higher_or_lower", None)


def test_the_table_of_limits_is_right():
    limits = TurnLimits()
    for key in ("turns", "turn_tokens", "seconds"):
        assert f"| `{key}` | {getattr(limits, key):g} |" in PAGE


def test_the_example_can_be_planned():
    experiment = read_experiment(ROOT / "examples" / "calculator.yaml").value
    plan = build(experiment)
    assert plan["arms/grpo/seed-0"].spec.environment == {"kind": "calculator", "turns": 3, "seconds": 5}
    assert plan["arms/guess/seed-0"].spec.environment is None
