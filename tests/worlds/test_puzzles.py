"""Exact checks of arithmetic and countdown answers."""

from fractions import Fraction
from itertools import permutations, product

import pytest

from evenhand import worlds
from evenhand.errors import UserError
from evenhand.seeding import rng
from evenhand.types import Completion, Group, Prompt
from evenhand.worlds.arithmetic import Arithmetic, ArithmeticGold
from evenhand.worlds.countdown import Countdown, CountdownGold, reaches
from evenhand.worlds.expressions import evaluate, numbers_in, solve


def scored(gold, meta, *texts):
    return gold([Group(prompt=Prompt(content="p", meta=meta), completions=tuple(Completion(content=t) for t in texts))])[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1 + 2 * 3", 7), ("(1 + 2) * 3", 9), ("7 / 2", Fraction(7, 2)), ("1 / 3 * 3", 1), (" 5 ", 5), ("((2))", 2)],
)
def test_evaluate_is_exact(text, value):
    assert evaluate(text)[0] == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "1 +", "2 ** 3", "7 // 2", "7 % 2", "-3", "1.5 + 1", "True + 1", "x", "__import__('os')", "1 / 0", "1 / (2 - 2)"),
        *("1 = 1", "1 if 2 else 3", "[1]", "1\n+ 2", "(" * 150 + "1" + ")" * 150, "1" * 201),
    ],
)
def test_evaluate_refuses_everything_else(text):
    assert evaluate(text) is None


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("#### 1,234", [1234]),
        ("costs $5.50.", [Fraction(11, 2)]),
        ("-3 and 4-5", [-3, 4, 5]),
        ("v2 2v 10%", [10]),
        ("1,2", [1, 2]),
        ("none", []),
        (".5", [Fraction(1, 2)]),
    ],
)
def test_numbers_in(text, numbers):
    assert numbers_in(text) == numbers


def brute_force(numbers, target):
    """All left-to-right and balanced bracketings of three numbers, evaluated by Python in fractions."""
    for a, b, c in permutations(map(Fraction, numbers)):
        for f, g in product("+-*/", repeat=2):
            for form in ("(a{f}b){g}c", "a{f}(b{g}c)"):
                try:
                    value = eval(form.format(f=f, g=g), {"a": a, "b": b, "c": c})
                except ZeroDivisionError:
                    continue
                if value == target:
                    return True
    return False


def test_solve_finds_only_true_solutions_and_misses_none_that_stay_whole():
    for numbers in ([1, 2, 3], [3, 7, 8], [5, 5, 5]):
        for target in range(1, 40):
            found = solve(numbers, target)
            if found is not None:
                assert reaches(found.text, numbers, target)
                assert brute_force(numbers, target)
            else:  # what the search may miss are detours through fractions or below zero
                assert not brute_force(numbers, target) or (numbers, target) in [([3, 7, 8], 0)]


def test_countdown_gold_by_hand():
    meta = {"numbers": [3, 7, 25], "target": 100}
    texts = (
        "<answer>(7 - 3) * 25</answer>",
        "<answer>(7 - 3) * 24</answer>",
        "<answer>100</answer>",
        "(7 - 3) * 25",
        "<answer>(7 - 3) * 25</answer> so there",
        "<answer></answer>",
        "",
    )
    found = scored(CountdownGold(), meta, *texts)
    assert found.values == pytest.approx((1.0, 0.1, 0.1, 0.0, 0.0, 0.1, 0.0))
    assert found.parts["correct"] == (1, 0, 0, 0, 0, 0, 0)


def test_reasoning_form_is_asked_for_only_when_wanted():
    meta = {"numbers": [1, 2], "target": 3}
    long, short = "<reasoning>1 + 2 = 3</reasoning><answer>1 + 2</answer>", "<answer>1 + 2</answer>"
    assert scored(CountdownGold(reasoning=True), meta, long, short).values == (1.0, 0.0)
    assert scored(CountdownGold(), meta, long, short).values == (0.0, 1.0)


@pytest.mark.parametrize("options", [{}, {"numbers": 4}, {"numbers": 2, "reasoning": True}])
def test_countdown_requests_are_solvable_and_a_perfect_writer_solves_them(options):
    task, generator = Countdown(**options, skill=1.0), rng(0)
    gold = CountdownGold(reasoning=task.reasoning)
    for _ in range(40):
        prompt = task.request(generator, "train")
        assert len(prompt.meta["numbers"]) == task.numbers
        assert 1 <= prompt.meta["target"] <= task.top
        assert scored(gold, prompt.meta, task.answer(prompt, generator)).values == (1.0,)


def test_arithmetic_gold_reads_the_last_number():
    found = scored(ArithmeticGold(), {"result": 95}, "37 + 58 = 95", "95, no: 96", "ninety-five", "It is 95.0.")
    assert found.values == (1.0, 0.0, 0.0, 1.0)
    assert found.parts["format"] == (1.0, 1.0, 0.0, 1.0)


def test_arithmetic_results_are_right_and_not_negative():
    task, generator = Arithmetic(digits=3), rng(0)
    for _ in range(100):
        meta = task.request(generator, "train").meta
        assert meta["result"] == (meta["a"] + meta["b"] if meta["sign"] == "+" else meta["a"] - meta["b"]) >= 0


def test_arithmetic_heldout_knows_no_commuted_twins():
    task = Arithmetic(digits=1)

    def questions(split):
        generator = rng(1, split)
        found = [task.request(generator, split).meta for _ in range(300)]
        return {(m["sign"], max(m["a"], m["b"]), min(m["a"], m["b"])) for m in found}

    assert not questions("train") & questions("heldout")


def test_folds_of_held_out_puzzles_share_nothing():
    def puzzles(fold):
        task, generator = Countdown(numbers=2, largest=9, fold=fold), rng(2, fold)
        found = [task.request(generator, "heldout").meta for _ in range(150)]
        return {(*sorted(m["numbers"]), m["target"]) for m in found}

    folds = [puzzles(fold) for fold in range(8)]
    assert all(folds)
    assert sum(map(len, folds)) == len(set.union(*folds))


def test_impossible_difficulties_are_refused():
    with pytest.raises(UserError, match="fold 8"):
        Countdown(fold=8)
    with pytest.raises(UserError, match="digits"):
        Arithmetic(digits=0)
    with pytest.raises(UserError, match="7"):
        Countdown(numbers=7)


@pytest.mark.parametrize("name", ["arithmetic", "countdown"])
def test_a_writer_without_mistakes_has_no_two_answers_and_says_so(name):
    with pytest.raises(UserError, match="the writer does not give 2 different answers"):
        worlds.get(name, skill=1.0).preferences(0, 1)
    assert len(worlds.get(name, skill=1.0).demonstrations(0, 3)) == 3


@pytest.mark.parametrize("option", [{"top": 0}, {"largest": 0}, {"top": -5}])
def test_a_puzzle_that_cannot_be_made_is_not_looked_for(option):
    with pytest.raises(UserError, match="use 1 or more"):
        worlds.get("countdown", **option)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("arithmetic", {"skill": "high"}),
        ("arithmetic", {"digits": 2.5}),
        ("quickstart", {"skill": [0.5]}),
        ("refusals", {"kinds": 3}),
    ],
)
def test_an_option_of_another_type_is_said_before_anything_is_made(name, option):
    with pytest.raises(UserError, match=f"{next(iter(option))}: "):
        worlds.get(name, **option)
