"""What a headline says against its own winner."""

from __future__ import annotations

import math

import pytest

from evenhand.report.text import headline, words_left
from evenhand.results.record import ArmResult
from tests.report.given import summarise

SFT = {"win_rate": 0.5, "kl": 0.0, "mean_length": 60.0, "mean_chars": 250.0, "distinct_1": 0.4}
WON = {"win_rate": 1.0, "ci95": [0.97, 1.0], "per_seed": [1.0], "ties": 0.0, "mean_length": 64.0, "mean_chars": 250.0}
CONTRAST = {"a": "rloo", "b": "sft", "difference": 0.5, "ci95": [0.47, 0.5], "p_holm": 0.001, "verdict": "better"}


def said(trained_on: list[str] | None = None, **winner: float):
    arms = {"sft": SFT, "rloo": {**WON, "kl": 3.0, "distinct_1": 0.38, **winner}}
    judge = {"name": "mine", "trained_on": trained_on or []}
    return headline(
        summarise({"baseline": "sft", "n_prompts": 100, "seeds": [0], "arms": arms, "contrasts": [CONTRAST], "judge": judge})
    )


def test_an_honest_winner_is_said_without_doubts() -> None:
    found = said()
    assert found.title == "rloo beats sft on 100% of held-out prompts"
    assert not any("collapsed" in s or "judges it" in s for s in found.sentences)


def test_one_function_as_reward_and_judge_stands_in_the_title() -> None:
    found = said(["rloo"])
    assert found.title == "rloo beats sft on 100% of held-out prompts, by the score it was trained on"
    assert any("was trained on the score that judges it" in s for s in found.sentences)
    assert said(["grpo"]).title == said().title, "of another arm"


def test_a_collapsed_winner_stands_in_the_title() -> None:
    found = said(["rloo"], kl=142.0, distinct_1=0.004)
    ends = ", by the score it was trained on, but its answers have collapsed"
    assert found.title == "rloo beats sft on 100% of held-out prompts" + ends
    assert any(
        "is 142 nats per answer (2.2 per token) from its start and has 1% of the different words" in s for s in found.sentences
    )


@pytest.mark.parametrize(
    ("winner", "word"),
    [
        ({"kl": 142.0}, "142 nats"),
        ({"distinct_1": 0.1}, "25% of the different words"),
        ({"kl": 49.0}, ""),
        ({"distinct_1": 0.25}, ""),
    ],
)
def test_one_sign_alone_is_a_sentence(winner, word) -> None:
    found = said(**winner)
    assert found.title == "rloo beats sft on 100% of held-out prompts"
    assert any(word in s for s in found.sentences) if word else not any("collapsed" in s for s in found.sentences)


def test_long_answers_of_few_nats_per_token_are_not_far() -> None:
    assert not any("collapsed" in s for s in said(kl=142.0, mean_length=900.0).sentences)


def test_longer_answers_may_have_a_smaller_share_of_distinct_words() -> None:
    base = ArmResult(distinct_1=0.4, mean_chars=100.0)
    assert words_left(ArmResult(distinct_1=0.2, mean_chars=400.0), base) == pytest.approx(1.0)
    assert words_left(ArmResult(distinct_1=0.2, mean_chars=50.0), base) == pytest.approx(0.5)
    assert words_left(ArmResult(distinct_1=0.2), base) == pytest.approx(0.5)
    assert words_left(ArmResult(), base) is None
    assert math.isclose(words_left(ArmResult(distinct_1=0.004, mean_chars=100.0), base) or 0, 0.01)
