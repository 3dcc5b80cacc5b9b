"""What the next trial tries."""

from __future__ import annotations

import math
import sys

import pytest

from evenhand.errors import UserError
from evenhand.spec.tuning import SearchRange, Tune
from evenhand.tuning.ask import ask, blind

SPACE = {"learning_rate": SearchRange(log=(1e-6, 1e-3)), "beta": (0.05, 0.1, 0.3)}


def asked(tune, space, value, count, arm="dpo"):
    """The settings of `count` trials in turn, each told the value of the earlier ones once the blind half is over."""
    tried, values = [], []
    for number in range(count):
        history = list(zip(tried, values, strict=True)) if number >= blind(tune.trials) else []
        tried.append(ask(tune, space, history, tried, arm))
        values.append(value(tried[-1]))
    return tried


def near(settings):
    """Best at a learning rate of 3e-5, worse by every decade."""
    return -abs(math.log10(settings["learning_rate"] / 3e-5))


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_question_has_the_same_answer_and_another_arm_another(sampler):
    tune = Tune(trials=6, sampler=sampler)
    first = asked(tune, SPACE, near, 6)
    assert asked(tune, SPACE, near, 6) == first
    assert asked(tune, SPACE, near, 6, arm="ipo") != first
    assert asked(Tune(trials=6, sampler=sampler, seeds=(101,)), SPACE, near, 6) != first


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_settings_lie_in_their_space(sampler):
    for settings in asked(Tune(trials=12, sampler=sampler), SPACE, near, 12):
        assert 1e-6 <= settings["learning_rate"] <= 1e-3
        assert settings["beta"] in (0.05, 0.1, 0.3)
        assert float(f"{settings['learning_rate']:.3g}") == settings["learning_rate"], "what is written is what is run"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_finite_space_is_gone_through_without_repetition(sampler):
    space = {"beta": (0.1, 0.2, 0.3), "schedule": ("cosine", "linear")}
    found = asked(Tune(trials=6, sampler=sampler), space, lambda s: s["beta"], 6)
    assert {(s["beta"], s["schedule"]) for s in found} == {(b, s) for b in (0.1, 0.2, 0.3) for s in ("cosine", "linear")}


def test_a_grid_is_gone_through_in_order():
    space = {"learning_rate": SearchRange(log=(1e-5, 1e-3), points=2), "beta": (0.1, 0.3)}
    found = asked(Tune(trials=4, sampler="grid"), space, near, 4)
    assert [(s["learning_rate"], s["beta"]) for s in found] == [(1e-5, 0.1), (1e-5, 0.3), (1e-3, 0.1), (1e-3, 0.3)]
    rates = asked(Tune(trials=3, sampler="grid"), {"learning_rate": SearchRange(log=(1e-5, 1e-3))}, near, 3)
    assert [s["learning_rate"] for s in rates] == [1e-5, 1e-4, 1e-3], "one range has as many points as there are trials"


def test_draws_are_even_on_the_range_s_own_scale():
    tune = Tune(trials=400, sampler="random")
    rates = [math.log10(s["learning_rate"]) for s in asked(tune, SPACE, near, 400)]
    assert sum(rate < -4.5 for rate in rates) == pytest.approx(200, abs=40), "four standard errors"


def test_tpe_looks_closer_to_where_it_was_good_than_drawing_does():
    def distance(sampler):
        later = asked(Tune(trials=20, sampler=sampler), {"learning_rate": SearchRange(log=(1e-8, 1e-2))}, near, 20)[10:]
        return -sum(near(s) for s in later) / len(later)

    assert distance("tpe") < 0.5 * distance("random")


def test_without_optuna_there_is_a_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match="needs Optuna") as caught:
        ask(Tune(), SPACE, [({"learning_rate": 1e-4, "beta": 0.1}, 0.5)], [{"learning_rate": 1e-4, "beta": 0.1}], "dpo")
    assert "evenhand[tune]" in caught.value.fix
