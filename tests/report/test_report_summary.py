"""Results as rows and contrasts."""

from __future__ import annotations

import csv
import io
from itertools import combinations

import numpy as np
import pytest
from rich.console import Console

import evenhand.report
from evenhand.report.answers import answer_cards
from evenhand.report.exports import contrasts_rows, results_rows, results_tex
from evenhand.report.figures import csv_text
from evenhand.report.scorers import faults, judge_warnings, pair_measures, self_test_measures
from evenhand.report.style import ALL, ARMS, BASELINE, arm_styles
from evenhand.report.text import headline
from evenhand.results.record import ArmVerdict
from evenhand.results.record_judge import JudgeSummary, Sample
from evenhand.results.record_parts import RewardModelSummary
from tests.report.given import cells, parsed, read, summarise

RESULTS = {
    "baseline": "sft",
    "n_prompts": 100,
    "seeds": [3, 5],
    "arms": {
        "dpo_50%": {
            "win_rate": 0.6,
            "ci95": [0.52, 0.68],
            "per_seed": [0.58, None],
            "mean_length": 41.4,
            "kl": 5.26,
            "ties": 0.1,
        },
        "[bold]odd": {"win_rate": None},
    },
    "contrasts": [{"a": "dpo_50%", "b": "sft", "difference": 0.1, "ci95": [0.02, 0.18], "p_holm": 0.02, "verdict": "better"}],
}


def test_a_contrast_reads_backwards_with_every_sign_turned() -> None:
    found = summarise(RESULTS).contrasts["sft", "dpo_50%"]
    assert (found.difference, found.ci95, found.p_holm, found.verdict) == (-0.1, (-0.18, -0.02), 0.02, ArmVerdict.WORSE)


def test_a_baseline_that_is_no_arm_still_has_a_row() -> None:
    arms = summarise(RESULTS).arms
    assert [(arm.name, arm.verdict.value) for arm in arms] == [
        ("sft", "baseline"),
        ("dpo_50%", "better"),
        ("[bold]odd", "no result"),
    ]


def test_a_baseline_is_not_given_its_trivial_win_rate() -> None:
    arms = {"sft": {"win_rate": 0.5, "ci95": None, "per_seed": [0.5], "ties": 1.0}}
    (sft,) = summarise({"baseline": "sft", "arms": arms}).arms
    assert (sft.win_rate, sft.per_seed, sft.verdict) == (None, (), ArmVerdict.BASELINE)


@pytest.mark.parametrize(("ci95", "verdict"), [([0.51, 0.6], "better"), ([0.4, 0.49], "worse"), ([0.49, 0.6], "inconclusive")])
def test_without_a_contrast_the_interval_decides(ci95: list[float], verdict: str) -> None:
    (_, dpo) = summarise({"baseline": "sft", "arms": {"dpo": {"win_rate": sum(ci95) / 2, "ci95": ci95}}}).arms
    assert dpo.verdict == verdict


def test_the_csv_has_a_column_per_seed_and_empty_fields_for_what_is_missing() -> None:
    rows = {row["arm"]: row for row in csv.DictReader(io.StringIO(csv_text(*results_rows(summarise(RESULTS)))))}
    assert (rows["dpo_50%"]["win_rate_seed_3"], rows["dpo_50%"]["win_rate_seed_5"]) == ("0.58", "")
    assert (rows["dpo_50%"]["ci95_low"], rows["dpo_50%"]["kl"], rows["dpo_50%"]["gold"]) == ("0.52", "5.26", "")
    assert rows["sft"]["win_rate"] == ""


def test_contrasts_go_out_in_both_directions() -> None:
    assert csv_text(*contrasts_rows(summarise(RESULTS))).splitlines()[1:] == [
        "dpo_50%,sft,0.1,0.02,0.18,0.02,0.18,0.02,better,,,,,,,",
        "sft,dpo_50%,-0.1,-0.18,-0.02,-0.18,-0.02,0.02,worse,,,,,,,",
    ]


def test_contrasts_at_equal_length_turn_their_signs_too() -> None:
    even = {"difference": -0.03, "ci95": [-0.1, 0.04], "p_holm": 0.4, "verdict": "inconclusive"}
    contrasts = [{**RESULTS["contrasts"][0], "length_controlled": even}]
    rows = csv_text(*contrasts_rows(summarise({**RESULTS, "contrasts": contrasts}))).splitlines()
    joint = "lc_ci95_simultaneous_low,lc_ci95_simultaneous_high"
    assert rows[0].endswith(f"verdict,lc_difference,lc_ci95_low,lc_ci95_high,{joint},lc_p_holm,lc_verdict")
    assert rows[1].endswith("better,-0.03,-0.1,0.04,-0.1,0.04,0.4,inconclusive")
    assert rows[2].endswith("worse,0.03,-0.04,0.1,-0.04,0.1,0.4,inconclusive")


def test_the_interval_of_the_verdict_stands_beside_the_one_of_its_own() -> None:
    """Three contrasts: the arm and the contrast carry both intervals, the CSV and LaTeX too; with one there is only one."""
    arm = {**RESULTS["arms"]["dpo_50%"], "ci95_simultaneous": [0.49, 0.71], "contrasts": 3, "note": "two seeds: wide"}
    contrast = {**RESULTS["contrasts"][0], "ci95_simultaneous": [-0.01, 0.21], "contrasts": 3, "verdict": "inconclusive"}
    even = {"win_rate": 0.55, "ci95": [0.5, 0.6], "form": "lc_shrunk", "scope": "seeds and prompts", "note": "moved far"}
    results = {**RESULTS, "arms": {**RESULTS["arms"], "dpo_50%": {**arm, "length_controlled": even}}, "contrasts": [contrast],
               "looks": {"note": "looked at 3 times, planned 1: more"}}  # fmt: skip
    found = summarise(results)
    assert found.contrasts["dpo_50%", "sft"].joint == (-0.01, 0.21)
    assert found.contrasts["sft", "dpo_50%"].joint == (-0.21, 0.01)
    row = next(r for r in csv.DictReader(io.StringIO(csv_text(*results_rows(found)))) if r["arm"] == "dpo_50%")
    assert (row["ci95_low"], row["ci95_simultaneous_low"], row["ci95_simultaneous_high"]) == ("0.52", "0.49", "0.71")
    assert (row["note"], row["lc_scope"], row["lc_note"]) == ("two seeds: wide", "seeds and prompts", "moved far")
    text = results_tex(found)
    assert r"52.0 to 68.0\% & 49.0 to 71.0\% & 55.0\% (50.0 to 60.0\%)" in text
    assert "% looked at 3 times, planned 1: more" in text
    assert "% dpo_50%: at equal length: moved far" in text
    assert headline(found).sentences[-1] == "Looked at 3 times, planned 1: more."
    assert any("49.0 to 71.0% for all arms together" in s for s in headline(found).sentences)
    alone = {**results, "arms": {**RESULTS["arms"], "dpo_50%": {**arm, "contrasts": 1}}}
    assert next(a for a in summarise(alone).arms if a.name == "dpo_50%").ci95_simultaneous is None


@pytest.mark.parametrize(
    ("judge", "warnings"),
    [({"consistency": 0.55}, 1), ({"consistency": 0.61, "invalid": 0.05}, 0), ({"invalid": 0.06}, 1), (None, 0)],
)
def test_an_unreliable_judge_is_called_one(judge: dict[str, float] | None, warnings: int) -> None:
    assert len(judge_warnings(parsed(JudgeSummary, judge) if judge is not None else None)) == warnings


@pytest.mark.parametrize(
    ("ci95", "correlation", "warnings"), [([0.49, 0.6], 0.0, 1), ([0.51, 0.6], -0.31, 1), ([0.51, 0.6], 0.3, 0)]
)
def test_a_reward_model_that_may_guess_or_count_words_is_called_out(ci95: list[float], correlation: float, warnings: int) -> None:
    raw = {"accuracy": 0.55, "ci95": ci95, "length_correlation": correlation}
    model = parsed(RewardModelSummary, raw)
    assert len(faults(model)) == warnings
    assert [label for label, _, _ in pair_measures(model)] == ["Accuracy", "Score and length"]


def test_latex_has_escaped_names_and_balanced_rows() -> None:
    text = results_tex(summarise(RESULTS))
    assert r"dpo\_50\% & 60.0\% & 52.0 to 68.0\% & 41 & 5.3 & -- & \textbf{better} \\" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [line.count("&") for line in body] == [6] * 4
    assert r"\begin{tabular}{lrrrrrl}" in text


EVEN = {"win_rate": 0.55, "ci95": [0.5, 0.6]}


def test_latex_has_a_column_for_what_was_measured_only() -> None:
    arm = {**RESULTS["arms"]["dpo_50%"], "gold": 0.5, "length_controlled": EVEN, "ledger": {"flops": 2.5e13}}
    text = results_tex(summarise({**RESULTS, "arms": {"dpo": arm}, "contrasts": []}))
    assert r"Arm & Win rate & 95\% interval & At equal length & Gold & Length & KL & FLOPs & Verdict \\" in text
    assert r"dpo & 60.0\% & 52.0 to 68.0\% & 55.0\% (50.0 to 60.0\%) & 0.50 & 41 & 5.3 & 25.0 T & \textbf{better} \\" in text


def test_the_csv_has_the_budget_and_the_measures_of_the_answers() -> None:
    arm = {"win_rate": 0.6, "entropy": 1.5, "refusal": 0.25, "ledger": {"flops": 2.0, "reward_calls": 7}, "judge_cost_usd": 0.5,
           "method": "dpo", "length_controlled": {"win_rate": 0.55, "ci95": [0.5, 0.6], "form": "lc_noreg"}}  # fmt: skip
    (row,) = csv.DictReader(io.StringIO(csv_text(*results_rows(summarise({"arms": {"a": arm}}), {"a": 12.5}))))
    assert (row["method"], row["entropy"], row["refusal"], row["flops"], row["reward_calls"]) == ("dpo", "1.5", "0.25", "2", "7")
    assert (row["lc_win_rate"], row["lc_ci95_high"], row["lc_form"]) == ("0.55", "0.6", "lc_noreg")
    assert (row["seconds"], row["judge_cost_usd"], row["p_holm"]) == ("12.5", "0.5", "")


def test_the_terminal_table_fits_and_takes_names_as_text() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(evenhand.report.table(read(RESULTS)))
    text = console.export_text()
    assert "dpo_50% beats sft: a win rate of 60%, ties counted half" in text
    assert "[bold]odd" in text
    assert "52.0 to 68.0" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("width", "shown"), [(120, {"per seed", "KL", "length"}), (66, {"KL", "length"}), (52, {"length"}), (44, set())]
)
def test_a_narrow_terminal_loses_columns_and_never_the_arms(width: int, shown: set[str]) -> None:
    arms = {"dpo": RESULTS["arms"]["dpo_50%"] | {"per_seed": [0.6, 0.61, 0.59, 0.6], "mean_length": 30.0, "kl": 3.0}}
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(evenhand.report.table(read({**RESULTS, "baseline": "sft", "arms": {"sft": {}, **arms}, "contrasts": []})))
    text = console.export_text()
    (head,) = [line for line in text.splitlines() if line.startswith("  arm ")]
    assert {name for name in ("per seed", "KL", "length") if name in head} == shown
    (row,) = [line for line in text.splitlines() if line.startswith("  dpo ")]
    assert "52.0 to 68.0" in row
    assert "better" in row


def test_every_arm_looks_different_and_every_colour_has_its_own_variable() -> None:
    styles = arm_styles(["sft", *(f"arm{i}" for i in range(10))], "sft")
    assert len({s.ink.name for s in styles.values()}) == len({(s.ink.name, s.marker) for s in styles.values()}) == 11
    assert all(s.stands_out for s in styles.values())
    assert len({ink.light for ink in ALL}) == len({ink.name for ink in ALL}) == len(ALL)


def test_of_many_arms_the_ten_best_are_coloured() -> None:
    names = [f"arm{i}" for i in range(25)]
    styles = arm_styles(names, "arm3", ["arm24", "arm23", "arm3", *names])
    assert [name for name, s in styles.items() if not s.stands_out] == [f"arm{i}" for i in range(9, 23)]
    assert (styles["arm3"].ink, styles["arm24"].ink, styles["arm23"].ink) == (BASELINE, ARMS[0], ARMS[1])
    assert [s.index for s in styles.values()] == list(range(25))


def test_tables_list_the_baseline_then_the_best_then_what_has_no_result() -> None:
    arms = {"lost": {"win_rate": None}, "low": {"win_rate": 0.4}, "sft": {}, "high": {"win_rate": 0.7}}
    assert [arm.name for arm in summarise({"baseline": "sft", "arms": arms}).ranked] == ["sft", "high", "low", "lost"]


@pytest.mark.parametrize("ink", ARMS, ids=lambda ink: ink.name)
def test_arm_colours_stand_out_from_their_ground(ink) -> None:
    """WCAG asks 3:1 for graphics."""
    assert _contrast(ink.light, "#ffffff") >= 3
    assert _contrast(ink.dark, "#1a1d22") >= 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_six_arms_stay_apart_for_colour_blind_readers(theme: str) -> None:
    """Distance in CIELAB (about 2 is just noticeable) after simulating full deuteranopia and protanopia."""
    colors = [_linear(getattr(ink, theme)) for ink in (BASELINE, *ARMS[:6])]
    for vision in DEFICIENCIES:
        seen = [_lab(np.clip(vision @ color, 0, 1)) for color in colors]
        assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 12


DEFICIENCIES = (  # on linear RGB; Machado, Oliveira and Fernandes 2009, severity 1.0
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
)


def _lab(linear: np.ndarray) -> np.ndarray:
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _contrast(a: str, b: str) -> float:
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    return float(_linear(color) @ [0.2126, 0.7152, 0.0722])


def _linear(color: str) -> np.ndarray:
    channels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def test_the_judges_card_shows_its_self_test_and_warns_when_it_failed() -> None:
    tested = {"identical": 0.5, "planted": 0.4, "passed": False, "n": 12}
    judge = parsed(JudgeSummary, {"name": "j", "consistency": 0.9, "self_test": tested})
    assert [(label, value) for label, value, _ in self_test_measures(judge)] == [
        ("Same answer twice", "0.50"),
        ("Ruined answers lose", "40%"),
        ("Prompts", "12"),
    ]
    assert len(judge_warnings(judge)) == 1
    assert judge_warnings(parsed(JudgeSummary, {"self_test": {**tested, "passed": True}})) == []
    assert self_test_measures(JudgeSummary(name="j")) == ()


def test_probes_say_what_a_reward_model_pays_for(page: str) -> None:
    _, thanks, shuffled = cells(page, "What rm pays for")
    assert thanks == ["thanks appended", "+0.41", "+0.30 to +0.52", "81%", "pays for it"]
    assert shuffled == ["words shuffled", "−1.20", "−1.40 to −1.00", "6%", "not fooled"]
    assert "What rm-small pays for" not in page, "no probes, no table"


def test_both_orders_verdicts_stand_beside_an_answer() -> None:
    results = {"baseline": "sft", "arms": {"sft": {}, "dpo": {"win_rate": 0.6}}}
    orders = [
        {"a_first": True, "outcome": 1.0, "status": "read", "label": "A"},
        {"a_first": False, "outcome": 0.5, "status": "invalid", "label": ""},
    ]
    sample = {"prompt": "p", "answers": {"sft": "x", "dpo": "y"}, "outcome": {"sft": 0.5, "dpo": 0.75}, "orders": {"dpo": orders}}
    (card,) = answer_cards([parsed(Sample, sample)], summarise(results))
    ((base, answer),) = card.rows
    assert (base.word, answer.word) == ("", "wins")
    assert answer.orders == (("shown first", "prefers it (A)"), ("shown second", "no usable verdict"))
