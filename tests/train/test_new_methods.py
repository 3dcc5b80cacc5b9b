"""A new online method is one short file outside of the package, and nothing else is touched."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from evenhand import methods
from evenhand.registry import forget
from evenhand.train.rollouts import CREDITS, SELECTIONS
from tests.battery.test_bandit import REWARD, VALUES, start
from tests.battery.tree import fit_online

FOLDER = Path(__file__).parent / "outside"
FILES = {"best_seeking": "max_minus_mean.py", "median_dpo": "best_vs_median.py", "reinforce_average": "decaying_average.py"}


@pytest.fixture(autouse=True)
def added() -> Iterator[None]:
    """The files are read as a user's would be, and what they register is forgotten afterwards."""
    before = set(methods.METHODS)
    for name in FILES.values():
        spec = importlib.util.spec_from_file_location(f"outside_{name[:-3]}", FOLDER / name)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield
    forget(FOLDER / name for name in FILES.values())
    for name in set(methods.METHODS) - before:
        del methods.METHODS[name]


@pytest.mark.parametrize("name", FILES)
def test_an_outside_method_trains(name: str) -> None:
    """On the tree of four answers it finds its way to better ones, through the real source, loop and objective."""
    assert len((FOLDER / FILES[name]).read_text().splitlines()) <= 45
    method = methods.build(name, {"completions_per_prompt": 4}, steps=40, max_tokens=8)
    table = fit_online(method, REWARD, start(), prompts=8, steps=40)
    gain = [float((t.distribution().detach().exp() * VALUES).sum()) for t in (start(), table)]
    assert gain[1] > gain[0] + 0.1, gain


def test_they_enter_the_methods_that_take_a_credit_or_a_selection_by_name() -> None:
    assert (
        methods.build("grpo", {"advantage": "max_minus_mean"}, steps=6, max_tokens=8).rollouts.credit is CREDITS["max_minus_mean"]
    )
    chosen = methods.build("iterative_dpo", {"pairs": "best_vs_median"}, steps=6, max_tokens=8).rollouts.credit
    assert chosen is SELECTIONS["best_vs_median"]
    assert methods.build("reinforce", {"baseline": "decaying_average"}, steps=6, max_tokens=8).rollouts.credit.decay == 0.5


def test_the_manual_states_their_formulas() -> None:
    assert CREDITS["max_minus_mean"].about().startswith("max_minus_mean: `A_i = max(r) - mean(r)`")
    assert SELECTIONS["best_vs_median"].about() == "The best of each group against its median answer"
    assert CREDITS["decaying_average"].about().startswith("`A_i = r_i - b`, then")


def test_a_credit_by_hand() -> None:
    reward = torch.tensor([[1.0, 4.0, float("nan"), 1.0]])
    assert CREDITS["max_minus_mean"].function(reward).tolist() == [[0.0, 2.0, 0.0, 0.0]]
