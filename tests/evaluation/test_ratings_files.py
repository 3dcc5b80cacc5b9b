"""`evenhand stats agreement`: labels of several annotators or judges, long and wide, against coefficients by hand."""

from __future__ import annotations

import json
import math

import pytest

from evenhand.errors import UserError
from evenhand.evaluation.ratings_files import agreement, read_ratings

# Two raters on 50 items: 20 times both yes, 5 yes/no, 10 no/yes, 15 both no. Cohen (1960): p_o .7, p_e .5, kappa .4.
YES_NO = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
KRIPPENDORFF = {  # Krippendorff (2011), part C: four observers, twelve units, missing data; nominal alpha .743
    "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    "C": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
}


def wide(path, rows, header="ann,bob"):
    path.write_text("\n".join([header, *(",".join(map(str, r)) for r in rows)]) + "\n")
    return path


def long(path, by_rater):
    rows = [{"item": i, "annotator": a, "label": v} for a, values in by_rater.items() for i, v in enumerate(values)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_cohen_of_words_in_columns(tmp_path):
    found = agreement(wide(tmp_path / "w.csv", YES_NO))
    assert found["level"] == "nominal"
    assert found["labels"] == ["no", "yes"]
    (kappa,) = found["cohen"]
    assert (kappa["a"], kappa["b"], kappa["n"]) == ("ann", "bob", 50)
    assert kappa["value"] == pytest.approx(0.4)
    low, high = kappa["ci95"]
    assert low < 0.4 < high


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_own_example_in_rows(tmp_path, level, alpha):
    found = agreement(long(tmp_path / "r.jsonl", KRIPPENDORFF), level=level)
    assert found["alpha"]["value"] == pytest.approx(alpha, abs=5e-4)
    assert found["alpha"]["n"] == 11  # one unit has a single rating
    assert found["raters"]["A"] == {"n": 9}


def test_both_forms_are_one(tmp_path):
    table = {"a": [1, 2, 2, 1, 3], "b": [1, 2, 1, 1, 3], "c": [1, 1, 2, 1, 2]}
    rows = list(zip(*table.values(), strict=True))
    one = agreement(long(tmp_path / "l.jsonl", table))
    other = agreement(wide(tmp_path / "w.csv", rows, "a,b,c"))
    assert one == other
    assert len(one["cohen"]) == 3
    # Fleiss (1971): P_i = 1, 1/3, 1/3, 1, 1/3; shares of 1, 2, 3: 8/15, 5/15, 2/15
    observed, expected = 3 / 5, (64 + 25 + 4) / 225
    assert one["fleiss"]["value"] == pytest.approx((observed - expected) / (1 - expected))


def test_sides_of_a_pair_have_a_tie_between(tmp_path):
    read = read_ratings(wide(tmp_path / "s.csv", [("A", "model_a"), ("B", "tie"), ("tie", "B")]))
    assert read.level == "ordinal"
    assert read.by_rater == {"ann": [1.0, 0.0, 0.5], "bob": [1.0, 0.5, 0.0]}


def test_items_questions_and_answers_are_no_raters(tmp_path):
    rows = [(i, "q", f"text {i}", "other", "A", "B") for i in range(4)]
    found = agreement(wide(tmp_path / "p.csv", rows, "id,prompt,response_a,response_b,ann,bob"))
    assert list(found["raters"]) == ["ann", "bob"]
    chosen = agreement(wide(tmp_path / "q.csv", [(1, 1, 2), (2, 2, 1)], "x,y,z"), ["x", "z"])
    assert list(chosen["raters"]) == ["x", "z"]


def test_an_empty_cell_is_no_rating(tmp_path):
    read = read_ratings(wide(tmp_path / "e.csv", [(1, 1), ("", 2), (3, "n/a")]))
    assert [math.isnan(v) for v in read.by_rater["ann"]] == [False, True, False]
    assert [math.isnan(v) for v in read.by_rater["bob"]] == [False, False, True]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("one.csv", "item,ann\n1,1\n2,2\n", "labels of fewer than two raters"),
        ("twice.csv", "item,rater,label\n1,ann,1\n1,bob,1\n1,ann,2\n", "'ann' labels item '1' twice"),
        ("text.csv", "ann,notes\n" + "".join(f"1,remark {i}\n" for i in range(40)), "column 'notes' has 40 different words"),
    ],
)
def test_what_is_no_table_of_ratings_is_said(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        agreement(tmp_path / name)


@pytest.mark.parametrize(("level", "message"), [("ratio", "unknown level 'ratio'"), ("interval", "words have no distances")])
def test_levels_that_do_not_fit(tmp_path, level, message):
    with pytest.raises(UserError, match=message):
        agreement(wide(tmp_path / "w.csv", YES_NO), level=level)
