"""Scores of held-out answers that are no numbers end their own stage, and not the results of the whole run."""

from __future__ import annotations

import math

import pytest

from evenhand.errors import UserError
from evenhand.stages.evaluate_reward_model import finite


def test_scores_that_are_no_numbers_are_refused_and_others_left_as_they_are() -> None:
    columns = {"chosen": [1.0, 2.0], "rejected": [0.0, -1.0], "chosen_chars": [3, 4], "rejected_chars": [1, 2]}
    assert finite(columns) is columns
    with pytest.raises(UserError, match="2 of 4 scores of held-out answers are no numbers"):
        finite({**columns, "chosen": [math.nan, math.inf]})
