from __future__ import annotations

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
