"""Ratings: closed forms, recovery, order independence, intervals, ties and position."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from evenhand.errors import UserError
from evenhand.stats.davidson import davidson_ratings
from evenhand.stats.ratings import ELO, bradley_terry_ratings, rank_intervals


def tournament(theta, games, seed=0, position=0.0):
    """All pairs of players meet `games` times; returns first, second, outcome, prompt, side."""
    draw = np.random.default_rng(seed)
    first, second, outcome, prompt, side = [], [], [], [], []
    for i in range(len(theta)):
        for j in range(i):
            for g in range(games):
                shown = 1 if draw.random() < 0.5 else -1
                p = expit(theta[i] - theta[j] + position * shown)
                first.append(f"p{i}")
                second.append(f"p{j}")
                outcome.append(float(draw.random() < p))
                prompt.append(g)
                side.append(shown)
    return first, second, outcome, prompt, side


def test_two_players_have_the_logit_of_the_win_rate():
    r = bradley_terry_ratings(["a"] * 200, ["b"] * 200, [1.0] * 120 + [0.5] * 20 + [0.0] * 60, anchor="b", draws=5)
    assert r.win_probability("a", "b") == pytest.approx(130 / 200, abs=1e-4)
    assert r["a"].elo - 1000 == pytest.approx(400 * math.log10(130 / 70), abs=0.1)
    assert (r["b"].elo, r["b"].elo_ci95, r["b"].elo_se) == (1000.0, (1000.0, 1000.0), 0.0)
    assert r["a"].battles == 200


def test_sandwich_of_two_players_is_the_binomial_error():
    n, w = 400, 0.7
    r = bradley_terry_ratings(["a"] * n, ["b"] * n, [1.0] * 280 + [0.0] * 120, anchor="b", draws=2000)
    expected = ELO / math.sqrt(n * w * (1 - w))  # delta method on the logit
    assert r["a"].elo_se == pytest.approx(expected, rel=0.01)
    low, high = r["a"].elo_ci95
    assert high - low == pytest.approx(2 * 1.96 * expected, rel=0.06)


def test_joint_fit_is_the_optimisers():
    first, second, outcome, prompt, _ = tournament([1.0, 0.2, -0.4, -0.8], 15)
    index = {f"p{i}": i for i in range(4)}
    i, j, y = np.array([index[a] for a in first]), np.array([index[b] for b in second]), np.array(outcome)

    def loss(t):
        s = t[i] - t[j]
        return float((np.logaddexp(0, s) - y * s).sum() + 0.5e-3 * (t**2).sum())

    best = minimize(loss, np.zeros(4), tol=1e-12).x
    r = bradley_terry_ratings(first, second, outcome, prompt=prompt, draws=5)
    assert [r[f"p{k}"].theta for k in range(4)] == pytest.approx(best, abs=1e-4)
    assert sum(p.theta for p in r.players) == pytest.approx(0.0, abs=1e-6)


def test_order_of_battles_and_sides_does_not_matter():
    first, second, outcome, *_ = tournament([0.8, 0.0, -0.8], 20)
    shuffle = np.random.default_rng(1).permutation(len(first))
    r = bradley_terry_ratings(first, second, outcome, draws=2)
    swapped = bradley_terry_ratings(
        [second[i] for i in shuffle], [first[i] for i in shuffle], [1 - outcome[i] for i in shuffle], draws=2
    )
    for player in r.players:
        assert swapped[player.name].theta == pytest.approx(player.theta, abs=1e-8)


def test_known_strengths_and_position_effect_are_recovered():
    theta = np.array([1.2, 0.3, -0.5, -1.0])
    first, second, outcome, prompt, side = tournament(theta, 1500, position=0.4)
    r = bradley_terry_ratings(first, second, outcome, prompt=prompt, position=side, draws=100)
    assert r.position_effect == pytest.approx(0.4, abs=0.08)  # standard error 0.025
    for k, t in enumerate(theta):
        assert r[f"p{k}"].theta == pytest.approx(t, abs=0.12)
    assert [p.name for p in r.players] == ["p0", "p1", "p2", "p3"]
    assert [p.rank for p in r.players] == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_battles_of_one_prompt_are_resampled_together():
    """Each prompt decides all its battles alike: ten copies must not narrow the interval."""
    y = (np.random.default_rng(2).random(60) < 0.6).astype(float)
    single = bradley_terry_ratings(["a"] * 60, ["b"] * 60, y, prompt=range(60), anchor="b", draws=1000)
    copies = bradley_terry_ratings(["a"] * 600, ["b"] * 600, np.repeat(y, 10), prompt=np.repeat(np.arange(60), 10), anchor="b")
    assert np.diff(copies["a"].elo_ci95)[0] == pytest.approx(np.diff(single["a"].elo_ci95)[0], rel=0.1)
    assert copies["a"].elo_se == pytest.approx(single["a"].elo_se, rel=0.02)


def test_style_is_scaled_but_not_centred():
    """`a` wins only by being longer, always by about the same gap: centring would credit that to strength."""
    draw = np.random.default_rng(3)
    gap = draw.normal(1.0, 0.8, size=4000)
    y = (draw.random(4000) < expit(1.5 * gap)).astype(float)
    plain = bradley_terry_ratings(["a"] * 4000, ["b"] * 4000, y, draws=2)
    styled = bradley_terry_ratings(["a"] * 4000, ["b"] * 4000, y, style=gap, draws=2)
    assert plain.win_probability("a", "b") > 0.75
    assert styled.win_probability("a", "b") == pytest.approx(0.5, abs=0.03)
    assert styled.style_effects[0] == pytest.approx(1.5 * gap.std(ddof=1), abs=0.12)


def test_unbeaten_player_is_finite():
    r = bradley_terry_ratings("aaa", "bbb", [1, 1, 1], draws=5)
    assert math.isfinite(r["a"].theta)
    assert r.win_probability("a", "b") > 0.95


def test_disconnected_players_are_named():
    with pytest.raises(UserError, match=r"\['c', 'd'\] never met"):
        bradley_terry_ratings("ac", "bd", [1, 0])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: bradley_terry_ratings("ab", "bb", [1, 0]), "meets itself"),
        (lambda: bradley_terry_ratings("ab", "ba", [1, 2]), "lie in"),
        (lambda: bradley_terry_ratings("ab", "ba", [1, 0], anchor="z"), "anchor"),
        (lambda: bradley_terry_ratings("ab", "ba", [1, 0], draws=2)["q"], "no player"),
        (lambda: davidson_ratings("ab", "ba", [1, 0]), "needs ties"),
        (lambda: davidson_ratings("ab", "ba", [1, 0.3]), "0, 0.5 or 1"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(UserError, match=says):
        call()


def test_rank_intervals_by_hand():
    # a clear winner, a clear loser, two that overlap
    assert rank_intervals([(5, 6), (2, 4), (3, 4.5), (0, 1)]) == [(1, 1), (2, 3), (2, 3), (4, 4)]


def test_davidson_of_two_players_fits_the_three_shares_exactly():
    """Two free parameters, two free shares: the fit reproduces 50 wins, 30 ties, 20 losses."""
    d = davidson_ratings(["a"] * 100, ["b"] * 100, [1.0] * 50 + [0.5] * 30 + [0.0] * 20)
    assert d.probabilities("a", "b") == pytest.approx((0.5, 0.3, 0.2), abs=1e-4)
    assert d.theta["a"] - d.theta["b"] == pytest.approx(math.log(50 / 20), abs=1e-3)
    assert math.exp(d.log_nu) == pytest.approx(0.3 / math.sqrt(0.5 * 0.2), abs=1e-3)


def test_davidson_with_rare_ties_is_bradley_terry():
    first, second, outcome, *_ = tournament([0.7, 0.0, -0.7], 60)
    outcome[0] = 0.5
    d, r = davidson_ratings(first, second, outcome), bradley_terry_ratings(first, second, outcome, draws=2)
    for name in ("p0", "p1", "p2"):
        assert d.theta[name] == pytest.approx(r[name].theta, abs=0.03)
    assert logit(r.win_probability("p0", "p2")) == pytest.approx(d.theta["p0"] - d.theta["p2"], abs=0.05)
