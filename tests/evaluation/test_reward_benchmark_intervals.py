"""Intervals of RewardBench, RewardBench 2 and RM-Bench: against enumeration, and their coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from evenhand.evaluation import pairs
from evenhand.evaluation.reward_benchmarks import reward_bench_2_report, rm_bench_report
from evenhand.stats import wilson
from evenhand.stats.reward_bench import SECTIONS, weighted_interval


def test_one_part_keeps_its_interval_and_equal_parts_shrink_as_the_root():
    low, high = wilson(0.8, 100)
    assert weighted_interval([(3.0, 0.8, (low, high))]) == pytest.approx((low, high))
    both = weighted_interval([(1.0, 0.8, (low, high))] * 2)
    assert both[0] == pytest.approx(0.8 - (0.8 - low) / 2**0.5)
    assert both[1] == pytest.approx(0.8 + (high - 0.8) / 2**0.5)


def test_a_sections_interval_covers_the_truth():
    draw = np.random.default_rng(0)
    subsets = SECTIONS["Chat"]
    truth = dict(zip(subsets, (0.97, 0.9, 0.8, 0.99, 0.6), strict=True))
    whole = sum(truth[s] * n for s, n in subsets.items()) / sum(subsets.values())
    inside = 0
    for _ in range(400):
        found = pairs.sections({s: (draw.random(n) < truth[s]).astype(float) for s, n in subsets.items()})
        low, high = found["sections_ci95"]["Chat"]
        inside += low <= whole <= high
    assert 0.93 <= inside / 400 <= 0.985


def test_all_right_is_not_known_for_certain():
    found = pairs.sections({s: np.ones(n) for s, n in SECTIONS["Chat"].items()})
    assert found["sections"] == {"Chat": 1.0}
    low, high = found["sections_ci95"]["Chat"]
    assert low < 0.999
    assert high == pytest.approx(1.0)


def row(kind, chosen, rejected, **more):
    return {"prompt": "q", "chosen": chosen, "rejected": rejected, **more, kind[0]: kind[1]}


def by_length(prompt, answers):
    return [float(len(a)) for a in answers]


def test_rm_bench_readings_have_intervals_over_prompts_not_over_their_nine_comparisons():
    right = row(("domain", "code"), ["aaa", "aaaa", "aaaaa"], ["b", "b", "b"])
    wrong = row(("domain", "code"), ["a", "a", "a"], ["bb", "bb", "bb"])
    rows = [(f"r:{i}", right if i % 2 else wrong) for i in range(20)]
    found = rm_bench_report(rows, by_length)["domains"]["code"]
    assert found["average"] == 0.5
    assert found["ci95"]["average"] == pytest.approx(wilson(0.5, 20))


def test_rm_benchs_overall_counts_the_two_safety_domains_as_one():
    good, bad = (["aaa"] * 3, ["b"] * 3), (["a"] * 3, ["bb"] * 3)
    names = ("chat", "code", "math", "safety-refuse", "safety-response")
    rows = [(f"r:{n}{i}", row(("domain", n), *(good if i % 2 else bad))) for n in names for i in range(10)]
    found = rm_bench_report(rows, by_length)
    low, high = found["overall_ci95"]["hard"]
    one = 0.5 - wilson(0.5, 10)[0]
    assert found["overall"]["hard"] == 0.5
    assert 0.5 - low == pytest.approx(one * (3 + 2 * 0.25) ** 0.5 / 4)
    assert high - 0.5 == pytest.approx(0.5 - low)


def test_reward_bench_2_subsets_and_ties_have_intervals():
    rows = [row(("subset", "Math"), ["aaa"], ["b", "b", "b"] if i % 4 else ["bbbb", "b", "b"], id=str(i)) for i in range(12)]
    rows += [row(("subset", "Ties"), ["aaaa"], ["b"], id=f"ref:{i}") for i in range(3)]
    rows += [row(("subset", "Ties"), ["aaaa", "a" * (4 + i)], ["b"], id=f"tied:{i}") for i in range(3)]
    found = reward_bench_2_report([(f"r:{i}", r) for i, r in enumerate(rows)], by_length)
    assert found["subsets"]["Math"] == 0.75
    assert found["ci95"]["Math"] == pytest.approx(wilson(0.75, 12))
    low, high = found["ci95"]["Ties"]
    assert low <= found["subsets"]["Ties"] <= high
    assert "overall_ci95" not in found
