from collections import Counter

import pytest

from evenhand.data.load import load
from evenhand.data.mix import MixPart, counts, mix, shares
from evenhand.errors import UserError
from evenhand.types import Group, Prompt


def part(name, n, **kwargs) -> MixPart:
    groups = [Group(prompt=Prompt(content=f"{name}{i}"), completions=()) for i in range(n)]
    return MixPart(name=name, groups=groups, **kwargs)


def test_without_a_size_everything_is_taken_once():
    assert counts([part("a", 30), part("b", 7)]) == [30, 7]
    assert counts([part("a", 30, cap=10), part("b", 7)]) == [10, 7]


def test_temperature_and_weights_decide_the_shares():
    parts = [part("a", 900), part("b", 100)]
    assert shares(parts) == pytest.approx([0.9, 0.1])
    assert shares(parts, 2.0) == pytest.approx([0.75, 0.25])
    assert shares(parts, 1e9) == pytest.approx([0.5, 0.5])
    assert shares([part("a", 900, weight=1), part("b", 100, weight=3)]) == pytest.approx([0.25, 0.75])
    assert shares([part("a", 900, cap=100), part("b", 100)]) == pytest.approx([0.5, 0.5])


def test_the_largest_mixture_without_repeats_is_limited_by_the_scarcest_part():
    assert counts([part("a", 900, weight=1), part("b", 100, weight=1)]) == [100, 100]
    assert counts([part("a", 900), part("b", 100)], temperature=2.0) == [300, 100]


def test_counts_add_up_to_the_size():
    parts = [part(n, 50, weight=1) for n in "abc"]
    assert counts(parts, size=100) == [34, 33, 33]
    assert sum(counts(parts, size=101)) == 101


def test_a_share_that_is_too_large_is_refused():
    with pytest.raises(UserError, match="'b' has 5 groups, but its share of 100 is 50"):
        counts([part("a", 90, weight=1), part("b", 5, weight=1)], size=100)


def test_the_mixture_is_fixed_by_the_seed_and_named():
    parts = [part("a", 60), part("b", 40)]
    once = mix(parts, seed=1, size=50)
    assert Counter(g.prompt.meta["dataset"] for g in once) == {"a": 30, "b": 20}
    assert len({g.prompt.id for g in once}) == 50, "no group comes twice"
    assert once == mix(parts, seed=1, size=50)
    assert once != mix(parts, seed=2, size=50)
    assert [g.prompt.meta["dataset"] for g in once[:20]] != ["a"] * 20, "parts are interleaved"


def test_what_is_taken_from_a_part_does_not_depend_on_the_others():
    def of_a(groups):
        return {g.prompt.id for g in groups if g.prompt.meta["dataset"] == "a"}

    alone = mix([part("a", 60, cap=20)], seed=3)
    beside = mix([part("b", 99), part("a", 60, cap=20)], seed=3)
    assert of_a(alone) == of_a(beside)


def test_wrong_mixtures():
    with pytest.raises(UserError, match="one name"):
        mix([part("a", 1), part("a", 1)], seed=0)
    with pytest.raises(UserError, match="of nothing"):
        mix([], seed=0)
    with pytest.raises(UserError, match="temperature"):
        shares([part("a", 1)], 0.0)
    with pytest.raises(UserError, match="positive"):
        shares([part("a", 1, weight=-1.0)])


def test_a_mixture_in_a_source(tmp_path):
    for name, n in (("x", 8), ("y", 4)):
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"prompt": "{name}{i}", "completion": "c"}}\n' for i in range(n)))
    x, y = str(tmp_path / "x.jsonl"), str(tmp_path / "y.jsonl")
    data = load({"mix": [{"path": x, "weight": 1}, {"path": y, "weight": 2, "part": "second"}], "seed": 4})
    assert Counter(g.prompt.meta["dataset"] for g in data.groups) == {"second": 4, "x": 2}
    assert data.description.startswith("mixture of 6 demonstrations: 2 of 8 x, 4 of 4 second\n  x.jsonl: demonstrations")
    assert data.kind == "demonstrations"
    (tmp_path / "z.jsonl").write_text('{"prompt": "q"}\n')
    with pytest.raises(UserError, match="differ in kind"):
        load({"mix": [x, str(tmp_path / "z.jsonl")]})
    with pytest.raises(UserError, match="unknown key 'sead'"):
        load({"mix": [x], "sead": 1})
    with pytest.raises(UserError, match="no part 'q'"):
        load({"mix": [x], "local": {"q": x}})


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"size": 0}, "data.size"),
        ({"size": -3}, "data.size"),
        ({"temperature": 1e-4}, "mix.temperature"),
        ({"temperature": 1e-320}, "mix.temperature"),
    ],
)
def test_a_mixture_of_no_or_less_than_no_rows_is_refused(tmp_path, changed, where):
    (tmp_path / "x.jsonl").write_text('{"prompt": "q", "completion": "a"}\n' * 3)
    with pytest.raises(UserError) as error:
        load({"mix": [{"path": str(tmp_path / "x.jsonl"), "weight": 7}], **changed})
    assert error.value.where == where


@pytest.mark.parametrize("changed", [{"cap": 0}, {"cap": -2}, {"weight": float("inf")}, {"weight": float("nan")}])
def test_a_part_of_no_rows_or_no_weight_is_refused(tmp_path, changed):
    (tmp_path / "x.jsonl").write_text('{"prompt": "q", "completion": "a"}\n' * 3)
    with pytest.raises(UserError) as error:
        load({"mix": [{"path": str(tmp_path / "x.jsonl"), **changed}]})
    assert error.value.where == f"data.mix[0].{next(iter(changed))}"


def test_a_column_of_the_rows_own_is_kept():
    groups = [Group(prompt=Prompt(content=f"{i}", meta={"dataset": f"mine {i}"}), completions=()) for i in range(4)]
    found = mix([MixPart(name="a", groups=groups), part("b", 4)], seed=0)
    assert Counter(g.prompt.meta["dataset"] for g in found) == {"a": 4, "b": 4}
    assert {g.prompt.meta.get("own_dataset") for g in found} == {None, *(f"mine {i}" for i in range(4))}


def test_a_mixture_of_files_says_where_a_column_went(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_text('{"prompt": "one", "dataset": "mine"}\n{"prompt": "two", "dataset": "yours"}\n')
    (tmp_path / "b.jsonl").write_text('{"prompt": "three"}\n{"prompt": "four"}\n')
    found = load({"mix": [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]})
    assert "2 of 2 a, 2 of 2 b" in found.description
    assert {g.prompt.meta.get("own_dataset") for g in found.groups} == {"mine", "yours", None}
    assert "the column 'dataset' of rows is in 'own_dataset'" in caplog.text
