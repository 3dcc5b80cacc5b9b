"""docs/profile.md says what docs/profile.json holds, and its columns mean what their heads say."""

import json

import pytest
import torch

from benchmarks import profile
from tests.conftest import ROOT

ROW = {
    "title": "a step", "seconds": 0.2, "arithmetic": 0.15, "memory": 0.004, "machine": "this", "date": "today",
    "gflops": 100.0, "gbytes": 20.0,
    "shares": {"attention": 0.1, "products": 0.6, "copies": 0.05, "other tensors": 0.15, "between": 0.1},
}  # fmt: skip


def test_a_row_shows_milliseconds_and_the_higher_floor():
    row = profile.cells(profile.Spent(**ROW))
    assert row == ["a step", "200", "150", "4.0", "75%", "10%", "60%", "5%", "15%", "10%"]


@pytest.mark.parametrize(
    ("operator", "part"),
    [
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::bmm", "attention"),
        ("mkldnn::_linear_pointwise", "products"),
        ("aten::mm", "products"),
        ("aten::index_select", "copies"),
        ("aten::silu", "other tensors"),
    ],
)
def test_operators_are_sorted_by_what_they_do(operator, part):
    assert profile.part_of(operator) == part


def test_shares_are_of_the_whole_run_and_add_up_to_it():
    a = torch.randn(400, 400)

    def products():
        for _ in range(20):
            a @ a

    found = profile.shares(profile.Task("", products, 0.0, 0.0))
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["products"] > max(found[part] for part in ("attention", "copies", "other tensors"))


def test_the_page_is_that_of_the_record():
    found = json.loads((ROOT / "docs" / "profile.json").read_text(encoding="utf-8"))
    assert found
    assert set(found) <= set(profile.WORK)
    assert (ROOT / "docs" / "profile.md").read_text(encoding="utf-8") == profile.written(found)
