"""What a trial is worth, and which trials cannot be told apart."""

from __future__ import annotations

import numpy as np
import pytest

from evenhand.spec.tuning import MeanReward, Tune
from evenhand.tuning.study import DONE, FAILED, TrialOutcome, behind, best, worst
from evenhand.tuning.trials import Trial


def outcome(number, row):
    trial = Trial(arm="dpo", number=number, settings={}, fits={}, verdicts={})
    if row is None:
        return TrialOutcome(trial=trial, status=FAILED)
    return TrialOutcome(trial=trial, status=DONE, value=float(np.mean(row)), ci95=(0.0, 1.0), table=np.array([row], dtype=float))


def test_the_best_is_the_highest_and_the_earliest_among_equals():
    assert best([outcome(1, [0, 0]), outcome(2, [1, 0]), outcome(3, [0, 1]), outcome(4, None)]).trial.number == 2
    assert best([outcome(1, None)]) is None


def test_a_failed_trial_is_worth_no_win_or_the_lowest_reward():
    ended = [outcome(1, [-3, -1]), outcome(2, [4, 4]), outcome(3, None)]
    assert worst(ended, Tune()) == 0.0
    assert worst(ended, Tune(objective=MeanReward(reward="gold"))) == -2.0


def test_equal_trials_are_alike_and_a_clear_loser_is_told_apart():
    winner = [1.0] * 60 + [0.0] * 40
    found = behind([outcome(1, winner), outcome(2, winner), outcome(3, [1.0] * 10 + [0.0] * 90)], outcome(1, winner))
    assert set(found) == {2, 3}
    assert (found[2].difference, found[2].told_apart) == (0.0, False)
    assert found[3].difference == pytest.approx(-0.5)
    assert found[3].told_apart


def test_many_trials_need_more_to_be_told_apart():
    """Eight prompts of a hundred lost: p is about 0.004 alone, and eight times as much among eight."""
    winner, loser = [1.0] * 60 + [0.0] * 40, [1.0] * 53 + [0.0] * 47
    alone = behind([outcome(1, winner), outcome(2, loser)], outcome(1, winner))
    among = behind([outcome(1, winner), *(outcome(n, loser) for n in range(2, 12))], outcome(1, winner))
    assert alone[2].told_apart
    assert not among[2].told_apart
    assert among[2].p_holm == pytest.approx(10 * alone[2].p_holm)
