"""The headline must say what the numbers say, and no more."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from evenhand.report.terminal import VerdictTable
from evenhand.report.text import headline, power, power_among
from tests.report.given import read, summarise


def arm(rate: float, half: float, seeds: list[float | None]) -> dict[str, Any]:
    return {"win_rate": rate, "ci95": [rate - half, rate + half], "per_seed": seeds}


def contrast(a: str, b: str, difference: float, verdict: str) -> dict[str, Any]:
    return {
        "a": a,
        "b": b,
        "difference": difference,
        "ci95": [difference - 0.05, difference + 0.05],
        "p_holm": 0.01,
        "verdict": verdict,
    }


def results(arms: dict[str, Any], contrasts: list[dict[str, Any]] = [], **more: Any) -> dict[str, Any]:  # noqa: B006 (never changed)
    return {"baseline": "sft", "n_prompts": 200, "seeds": [0, 1, 2], "arms": {"sft": {}, **arms}, "contrasts": contrasts, **more}


def test_a_winner_is_named_with_its_rate_interval_and_evidence() -> None:
    found = headline(summarise(results({"dpo": arm(0.664, 0.05, [0.65, 0.66, 0.68])})))
    assert found.title == "dpo beats sft on 66% of held-out prompts"
    assert "66.4%" in found.sentences[0]
    assert "61.4 to 71.4%" in found.sentences[0]
    assert "3 seeds and 200 prompts" in found.sentences[0]


def test_many_ties_are_not_prompts_won() -> None:
    found = headline(summarise(results({"dpo": arm(0.7, 0.05, [0.7, 0.7, 0.7]) | {"ties": 0.5}})))
    assert found.title == "dpo beats sft: a win rate of 70%, ties counted half"


def test_where_the_judge_says_right_or_wrong_the_title_says_how_much_is_solved() -> None:
    said = results({"rloo": arm(0.7, 0.05, [0.7, 0.7, 0.7]) | {"gold": 0.702}}, judge={"right_or_wrong": True})
    said["arms"]["sft"] = {"gold": 0.298}
    found = headline(summarise(said))
    assert found.title == "rloo solves 70% of held-out prompts, sft 30%"
    assert found.sentences[0].startswith("Win rate of rloo: 70.0%")
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(VerdictTable(read(said)))
    assert "solved %" in (shown := console.export_text())
    assert "29.8" in shown


def test_an_interval_that_holds_one_half_is_inconclusive() -> None:
    found = headline(
        summarise(results({"dpo": arm(0.54, 0.05, [0.52, 0.55, 0.55])}, power={"minimum_detectable_difference": 0.072}))
    )
    assert found.title == "Inconclusive: dpo cannot be told apart from sft"
    assert any("7.2 points" in sentence for sentence in found.sentences)


def test_the_verdict_of_the_results_stands_over_the_plain_interval() -> None:
    """Holm's correction can turn a single interval's "better" into "inconclusive"."""
    found = headline(
        summarise(results({"dpo": arm(0.56, 0.05, [0.55, 0.56, 0.57])}, [contrast("dpo", "sft", 0.06, "inconclusive")]))
    )
    assert found.title.startswith("Inconclusive")


@pytest.mark.parametrize(("seeds", "claimed"), [([0.62, 0.64, 0.48], True), ([0.80, 0.49, 0.48], False), ([0.74, 0.46], False)])
def test_at_most_one_seed_may_disagree_and_none_of_two(seeds: list[float | None], claimed: bool) -> None:
    found = headline(summarise(results({"dpo": arm(0.6, 0.05, seeds)})))
    assert ("beats" in found.title) is claimed
    assert any("seeds do not agree" in sentence for sentence in found.sentences) is not claimed


def test_the_runner_up_is_compared_by_its_own_contrast() -> None:
    arms = {"dpo": arm(0.62, 0.04, [0.6, 0.62, 0.64]), "grpo": arm(0.66, 0.04, [0.66, 0.66, 0.66])}
    against_sft = [contrast("dpo", "sft", 0.12, "better"), contrast("grpo", "sft", 0.16, "better")]
    found = headline(summarise(results(arms, [*against_sft, contrast("dpo", "grpo", -0.04, "inconclusive")])))
    assert "dpo (62.0%) also beats sft." in found.sentences
    assert found.sentences[2] == "Between grpo and dpo this run cannot decide (+4.0 points, 95% interval −1.0 to +9.0)."


def test_an_interval_without_zero_that_decides_nothing_is_explained() -> None:
    arms = {"dpo": arm(0.62, 0.04, [0.6, 0.62, 0.64]), "grpo": arm(0.70, 0.04, [0.7, 0.7, 0.7])}
    against_sft = [contrast("dpo", "sft", 0.12, "better"), contrast("grpo", "sft", 0.2, "better")]
    between = contrast("grpo", "dpo", 0.08, "inconclusive") | {"p_holm": 0.083}
    found = headline(summarise(results(arms, [*against_sft, between])))
    said = "(+8.0 points, 95% interval +3.0 to +13.0; among all the pairs of arms p is 0.083)."
    assert found.sentences[2] == f"Between grpo and dpo this run cannot decide {said}"


def test_a_run_too_small_to_find_anything_says_so() -> None:
    arms = {"dpo": arm(0.26, 0.4, [0.19, 0.33]) | {"ci95_prompts_only": [0.19, 0.35]}}
    found = headline(summarise(results(arms, power={"minimum_detectable_difference": 2.46})))
    assert found.title == "Inconclusive: dpo cannot be told apart from sft"
    assert any("would make dpo worse than sft" in sentence for sentence in found.sentences)
    assert any("no difference, however large" in sentence for sentence in found.sentences)


def test_what_goes_unnoticed_is_that_of_the_comparison_with_the_baseline() -> None:
    """The pairs among the others are many more, and share a correction of their own: their middle one says nothing of these."""
    arms = {"dpo": arm(0.51, 0.05, [0.5, 0.51, 0.52]), "ipo": arm(0.49, 0.05, [0.5, 0.49, 0.48])}
    reach = {("dpo", "sft"): 0.10, ("ipo", "sft"): 0.12, ("dpo", "ipo"): 0.4}
    found = [contrast(a, b, 0.01, "inconclusive") | {"minimum_detectable_difference": v} for (a, b), v in reach.items()]
    summary = summarise(results(arms, found, power={"minimum_detectable_difference": 0.4, "median": 0.12}))
    assert power(summary).startswith("A difference from sft smaller than about 11.0 points would usually go unnoticed")
    assert power_among(summary) == "Between two other arms it takes about 40.0 points."
    assert power(summary) in headline(summary).sentences


def test_losers_are_said_to_lose() -> None:
    found = headline(summarise(results({"ipo": arm(0.40, 0.05, [0.4, 0.4, 0.4])})))
    assert found.title == "ipo does worse than sft"


def test_mixed_results_without_a_winner() -> None:
    arms = {"ipo": arm(0.40, 0.05, [0.4, 0.4, 0.4]), "dpo": arm(0.51, 0.05, [0.5, 0.51, 0.52])}
    assert headline(summarise(results(arms))).title == "No arm beats sft; ipo is worse"


def test_one_seed_is_called_one_seed() -> None:
    found = headline(summarise(results({"dpo": arm(0.7, 0.05, [0.7])}) | {"seeds": [0]}))
    assert any("not other training runs" in sentence for sentence in found.sentences)


def test_a_failed_seed_counts_neither_way() -> None:
    assert "beats" in headline(summarise(results({"dpo": arm(0.7, 0.05, [0.7, None, 0.7])}))).title


def test_without_any_comparison_there_is_no_verdict() -> None:
    assert headline(summarise({"arms": {"dpo": {"gold": 0.5}}})).title == "dpo was not judged against another arm"
    assert headline(summarise({"arms": {}})).title == "No arm has a result"


def test_a_resolution_beyond_what_a_win_rate_can_differ_by_is_not_shown_as_points() -> None:
    given = results({"dpo": arm(0.54, 0.05, [0.52, 0.55, 0.55])}, power={"minimum_detectable_difference": 3.577, "median": 0.391})
    said = " ".join(headline(summarise(given)).sentences)
    assert "39.1 points (of any size for the pair that varies most)" in said
    assert "357" not in said
