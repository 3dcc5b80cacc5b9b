"""Samples of training as the judge scores them: on their own tokens, and as they ended."""

from __future__ import annotations

import pytest

from evenhand.stages.training_samples import group
from evenhand.types import Finish, Prompt

PROMPT = Prompt(content="p", id="p")


@pytest.mark.parametrize(
    ("row", "finish"),
    [
        ({"tokens": [5, 6], "finish": "length"}, Finish.LENGTH),
        ({"tokens": [5, 2], "finish": "stop"}, Finish.STOP),
        ({"tokens": [5, 2]}, Finish.STOP),  # as samples were written before
        ({"tokens": [5, 6]}, Finish.LENGTH),
    ],
)
def test_a_cut_sample_is_scored_as_cut(row, finish):
    made = group({"completion": "a b", **row}, PROMPT, frozenset({2}))
    assert made.completions[0].finish is finish
    assert made.completions[0].tokens == tuple(row["tokens"])
