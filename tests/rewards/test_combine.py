"""Weighted sums, clips, scales and ensembles on rewards that answer from a table."""

import math

import pytest

from evenhand.errors import UserError
from evenhand.rewards.combine import Affine, Clipped, Ensemble, WeightedReward, ensemble_rule
from evenhand.types import Completion, Group, Prompt, Scores

GROUPS = [Group(prompt=Prompt(content=str(i)), completions=(Completion(content="a"), Completion(content="b"))) for i in range(2)]


class Table:
    """Answers with the given rows, and counts its calls."""

    def __init__(self, *rows, **parts):
        self.rows, self.parts, self.calls = rows, parts, 0

    def __call__(self, groups):
        self.calls += 1
        return [Scores(tuple(row), {k: v[i] for k, v in self.parts.items()}) for i, row in enumerate(self.rows)]


def test_weighted_sums_and_keeps_parts_unweighted():
    first = Table((1.0, 2.0), (3.0, 4.0), inner=((7.0, 8.0), (9.0, 10.0)))
    second = Table((10.0, 20.0), (30.0, 40.0))
    found = WeightedReward({"x": (first, 2.0), "y": (second, -0.1)})(GROUPS)
    assert [s.values for s in found] == [pytest.approx((1.0, 2.0)), pytest.approx((3.0, 4.0))]
    assert found[1].parts == {"x": (3.0, 4.0), "y": (30.0, 40.0), "x/inner": (9.0, 10.0)}
    assert (first.calls, second.calls) == (1, 1)


def test_an_unscored_part_makes_the_sum_unscored():
    found = WeightedReward({"x": (Table((1.0, math.nan), (0, 0)), 0.0), "y": (Table((1.0, 1.0), (0, 0)), 1.0)})(GROUPS)
    assert found[0].values[0] == 1.0
    assert math.isnan(found[0].values[1])


def test_clip_keeps_what_was_clipped_and_nan():
    found = Clipped(inner=Table((-5.0, math.nan), (0.5, 5.0)), low=-1.0, high=1.0)(GROUPS)
    assert found[0].values[0] == -1.0
    assert math.isnan(found[0].values[1])
    assert found[1].values == (0.5, 1.0)
    assert found[1].parts["unclipped"] == (0.5, 5.0)


def test_affine_by_hand():
    assert Affine(inner=Table((1.0, 3.0), (5.0, 2.0)), shift=1.0, scale=4.0)(GROUPS)[1].values == (1.0, 0.25)


def test_ensembles_by_hand():
    members = (Table((1.0, 5.0), (0, 0)), Table((3.0, 1.0), (0, 0)))
    assert Ensemble(members, ensemble_rule("mean"))(GROUPS)[0].values == (2.0, 3.0)
    assert Ensemble(members, ensemble_rule("min"))(GROUPS)[0].values == (1.0, 1.0)
    careful = Ensemble(members, ensemble_rule("lower_bound", k=2.0))(GROUPS)[0]
    assert careful.values == pytest.approx((2.0 - 2 * 1.0, 3.0 - 2 * 2.0))
    assert careful.parts["spread"] == pytest.approx((1.0, 2.0))
    assert careful.parts["member 1"] == (3.0, 1.0)


def test_uncertainty_takes_variances_off():
    """Variances 1 and 4 of members (1, 5) and (3, 1); nothing is left of it at k = 0, and one member is itself."""
    members = (Table((1.0, 5.0), (0, 0)), Table((3.0, 1.0), (0, 0)))
    assert Ensemble(members, ensemble_rule("uncertainty", k=0.5))(GROUPS)[0].values == pytest.approx((1.5, 1.0))
    assert Ensemble(members, ensemble_rule("uncertainty", k=0.0))(GROUPS)[0].values == (2.0, 3.0)
    assert Ensemble(members[:1], ensemble_rule("uncertainty", k=9.0))(GROUPS)[0].values == (1.0, 5.0)


def test_lower_bound_of_agreeing_members_is_their_mean():
    members = (Table((1.0, 5.0), (0, 0)),) * 3
    assert Ensemble(members, ensemble_rule("lower_bound", k=9.0))(GROUPS)[0].values == (1.0, 5.0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: WeightedReward({}),
        lambda: Ensemble((), ensemble_rule("mean")),
        lambda: Clipped(inner=Table(), low=1.0, high=1.0),
        lambda: Affine(inner=Table(), scale=-1.0),
        lambda: ensemble_rule("median"),
    ],
)
def test_nonsense_is_refused(build):
    with pytest.raises(UserError):
        build()
