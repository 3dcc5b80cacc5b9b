from __future__ import annotations

import pytest

from evenhand.errors import UserError
from evenhand.train.cost_accounting import Ledger
from evenhand.train.offline import FixedSource
from evenhand.train.shuffling import window


def test_every_row_once_per_epoch_in_a_new_order():
    first, second = window(0, "rows", 7, 0, 7), window(0, "rows", 7, 7, 7)
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second


def test_a_window_does_not_depend_on_how_it_is_reached():
    assert window(3, "rows", 5, 4, 4) == (window(3, "rows", 5, 0, 5) + window(3, "rows", 5, 5, 5))[4:8]


def test_seeds_and_names_draw_apart():
    orders = {tuple(window(s, n, 20, 0, 20)) for s in (0, 1) for n in ("rows", "prompts")}
    assert len(orders) == 4


def test_data_of_which_nothing_is_left_are_said():
    """Rows that rank nothing are taken out before."""
    with pytest.raises(UserError, match="no row is left to learn from"):
        FixedSource(items=[], prompts_per_step=2, tokens_per_microbatch=10, seed=0, ledger=Ledger())
