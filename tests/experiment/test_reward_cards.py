"""Best-of-n, length leaning and cards, from scores written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evenhand.results.judge_summary import controlled_win_rate, equal_lengths, judge_summary
from evenhand.results.reward_model_summary import best_of_n, length_leaning, on_pairs
from evenhand.stages.judge import JudgedBy, ScoredBy
from evenhand.stats.intervals import wilson

SCORES = {
    "proxies": {"rm": [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, None, 2.0]]},
    "gold": [[0.0, 0.5, 1.0], [0.0, 0.5, 1.0], [1.0, 1.0, 1.0]],
    "length": [[5, 10, 15], [5, 10, 15], [1, 2, 3]],
}


def test_best_of_n_leaves_an_unscored_prompt_out_for_every_scorer() -> None:
    curves = best_of_n(SCORES)
    assert [p.gold for p in curves["rm"]] == pytest.approx([0.5, 0.5, 0.5])  # right on one prompt, upside down on the other
    assert [p.gold for p in curves["the judge itself"]] == pytest.approx([0.5, (0.5 + 1 + 1) / 3, 1.0])
    assert [p.gold for p in curves["length"]] == pytest.approx([0.5, (0.5 + 1 + 1) / 3, 1.0])
    assert {(p.prompts, p.left_out) for p in curves["rm"]} == {(2, 1)}
    assert best_of_n({**SCORES, "gold": None}) == {}


def test_length_leaning_is_within_prompts() -> None:
    found = length_leaning(SCORES)["rm"]
    assert found.mean_correlation == pytest.approx(0.0, abs=1e-6)  # +1 on one prompt, -1 on the other
    assert (found.share_above, found.prompts, found.skipped) == (0.5, 2, 1)
    counts = np.array(found.heatmap.counts)
    assert (counts[0].sum(), counts[-1].sum(), counts.sum()) == (1, 1, 2)


def test_open_ended_bins_are_null() -> None:
    scores = {"chosen": [1.0, 2.0, 0.0], "rejected": [0.0, 0.0, 1.0], "chosen_chars": [3, 1, 2], "rejected_chars": [1, 2, 2]}
    found = on_pairs([scores])
    assert found.calibration[-1].high is None
    assert {k: b.observed for k, b in found.by_length.items()} == {"shorter": 1.0, "equal": 0.0, "longer": 1.0}
    assert found.probes == {}


def test_the_interval_around_the_mean_of_seeds_is_one_of_shares() -> None:
    lengths = {"chosen_chars": [1] * 20, "rejected_chars": [2] * 20}
    seeds = [{"chosen": [1.0] * right + [0.0] * (20 - right), "rejected": [0.5] * 20, **lengths} for right in (17, 20, 20)]
    found = on_pairs(seeds)
    assert found.accuracy == pytest.approx(0.95)
    assert found.ci95[1] == 1.0, "the first seed's interval reaches 94.8 %, moved by 10 points it would pass 100"
    assert found.ci95[0] == pytest.approx(wilson(0.85, 20)[0] + 0.1)


def test_equal_length_uses_difficulty_from_four_other_arms_and_never_its_own() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=80)
    arms = ["base", *"vwxyz"]
    outcomes = {a: (rng.normal(size=(2, 80)) < hard).astype(float) for a in arms}
    chars = {a: rng.integers(20, 200, size=(2, 80)).astype(float) for a in arms}
    found = controlled_win_rate(equal_lengths(outcomes, chars, "base")["v"])
    assert found is not None
    assert found.form == "lc_noreg"
    assert found.ci95[0] < found.win_rate < found.ci95[1]
    few = controlled_win_rate(equal_lengths({a: outcomes[a] for a in arms[:5]}, chars, "base")["v"])
    assert few is not None
    assert few.form == "lc_shrunk"
    same = {a: np.full((2, 80), 50.0) for a in arms}
    refused = controlled_win_rate(equal_lengths(outcomes, same, "base")["v"])
    assert refused is not None
    assert (refused.win_rate, refused.note) == (None, "refused: every length difference is the same")


def test_a_card_of_scores_names_no_order() -> None:
    class Settings:
        reward = "vader"

    account = {"n": 4, "invalid": 0.25, "ties": 0.5, "identical": 0.0, "empty": 0.0, "mean_chars": 3.0, "win_rate_longer": None}
    judge = JudgedBy(settings=ScoredBy(reward={"kind": "vader"}, tie=0.1))
    card = judge_summary(Settings(), judge, {"a": [{"account": account}], "b": [{"account": account}]}, "b")
    assert (card.name, card.kind, card.tie, card.invalid, card.n) == ("vader", "vader", 0.1, 0.25, 4)
    assert (card.consistency, card.self_test, card.win_rate_longer, card.right_or_wrong) == (None, None, None, False)
