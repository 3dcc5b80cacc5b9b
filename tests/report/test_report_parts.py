"""Chosen weights, the grid of lengths, what was left out, and a page with 33 arms."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

import evenhand.report
from evenhand.report.formatting import fixed
from evenhand.report.plots.lengths import length_grid_figure
from evenhand.report.style import arm_styles
from evenhand.report.text import cautions, corrected, excluded
from evenhand.report.training import fired, shared_prompts, validation_figures, warnings_by_rule
from tests.report.browser import Browser
from tests.report.fake_more import EXCLUDED, length_grid, selection
from tests.report.fake_run import write_run
from tests.report.given import cells, choices, grid, read, summarise
from tests.report.many_arms import COUNT, write_many

STYLES = arm_styles(["sft", "grpo", "dpo"], "sft")
WAIVED = {"check": "D17", "reason": "known"}


def test_every_choice_is_told_with_its_number_and_the_starts() -> None:
    kept = [(arm, seed, c) for arm, seeds in choices(selection()).items() for seed, c in seeds.items()]
    assert [(arm, seed, c.chosen, fixed(c.value, 3), fixed(c.start, 3), c.at_edge) for arm, seed, c in kept] == [
        ("grpo", "0", 90, "0.900", "0.100", False),
        ("grpo", "1", 90, "1.000", "0.100", False),
        ("grpo", "2", 90, "1.100", "0.100", False),
        ("dpo", "0", 120, "0.500", "0.690", True),
    ]
    assert shared_prompts(choices(selection())) == 0
    assert shared_prompts({}) is None
    leaking = {"dpo": {"0": {**selection()["dpo"]["0"], "shared_prompts": 3}}}
    assert shared_prompts(choices(leaking)) == 3


def test_the_page_has_a_row_per_choice(page: str) -> None:
    rows = cells(page, "Which weights were kept")
    assert rows[1] == ["grpo", "0", "90", "0.900", "0.100", "4", "training reward of one answer each, 64 prompts"]
    assert rows[4][:6] == ["dpo", "0", "120", "0.500", "0.690", "4"]
    assert rows[4][6] == "the method's own loss, 64 prompts; the last step measured, so more might be better"


def test_validation_curves_begin_at_the_start_and_rules_do_not_share_a_scale() -> None:
    reward, loss = validation_figures(choices(selection()), STYLES)
    rows = list(csv.DictReader(io.StringIO(reward.csv)))
    assert [row["step"] for row in rows] == ["0", "30", "60", "90", "120"]
    assert (rows[0]["grpo seed 1"], rows[3]["grpo seed 1"]) == ("0.1", "1")
    assert "dpo" not in reward.csv
    assert "grpo" not in loss.csv
    assert validation_figures({}, STYLES) == []


def test_the_grid_of_lengths_holds_every_cell_and_leaves_the_baseline_out() -> None:
    figure = length_grid_figure(grid(length_grid()), "sft")
    assert figure is not None
    rows = list(csv.DictReader(io.StringIO(figure.csv)))
    assert [(r["arm"], r["trained_to"], r["limit"], r["win_rate"]) for r in rows] == [
        ("dpo_short", "32", "32", "0.66"), ("dpo", "64", "32", "0.42"), ("dpo", "64", "64", "0.61"),
    ]  # fmt: skip
    assert (rows[1]["ci95_low"], rows[1]["gold_change_high"], rows[1]["seeds"]) == ("0.3", "0.2", "2")
    assert "no result" in figure.wide.standalone
    assert "dpo_short (trained to 32)" in figure.wide.standalone
    assert length_grid_figure(None, "sft") is None


def test_what_is_lost_is_said_on_top_and_explained_below() -> None:
    assert "no verdict under seed 2" in excluded(read({"arms": {}, "excluded": EXCLUDED}))[0]
    assert "seeds 0, 1" in excluded(read({"arms": {}, "excluded": EXCLUDED}))[0]
    assert excluded(read({"arms": {}, "excluded": [{"arm": "a", "seeds": [0], "kept": []}]})) == [
        "a has no verdict under any seed."
    ]
    told = cautions(read({"arms": {}, "excluded": EXCLUDED, "deviations": ["x", "y"], "waived": [WAIVED]}), ["The judge failed."])
    assert [target for _, target in told] == ["judge", "failed", "equal", "equal"]
    assert cautions(read({"arms": {}, "deviations": [], "excluded": [], "failed": []}), []) == []


@pytest.mark.parametrize(("p", "said"), [(0.07, True), (0.02, False)])
def test_an_interval_without_a_claim_is_explained(p: float, said: bool) -> None:
    verdict = "inconclusive" if said else "better"
    contrast = {"a": "dpo", "b": "sft", "difference": 0.1, "ci95": [0.02, 0.18], "p_holm": p, "verdict": verdict}
    arms = {"dpo": {"win_rate": 0.6, "ci95": [0.52, 0.68]}}
    text = corrected(summarise({"baseline": "sft", "arms": arms, "contrasts": [contrast]}))
    assert ("The interval of dpo excludes 50%" in text) is said


def test_the_page_has_them_all(page: str) -> None:
    for text in ("Which weights were kept", "share no prompt with the 240", "Training length and inference length",
                 "Left out of the comparison", "At equal length", "Most over least", "CPU-seconds"):  # fmt: skip
        assert text in page, text
    told = re.search(r"Budgets of the trained arms.*?</p>", page, re.DOTALL)
    assert told is not None
    assert "</strong>. See" in told.group(), "a speed has no ratio, and leaves no empty place at the end"


def test_the_matrix_turns_to_equal_length_without_a_script(browser: Browser, run_dir: Path) -> None:
    browser.open(run_dir / "report.html")
    shown = "['raw', 'even'].map(c => getComputedStyle(document.querySelector(`.views .${c}`)).display)"
    assert browser.evaluate(shown) == ["block", "none"]
    browser.evaluate("document.querySelector('#view-even').click()")
    assert browser.evaluate(shown) == ["none", "block"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_many(tmp_path_factory.mktemp("many") / "run")
    evenhand.report.write(folder)
    return folder / "report.html"


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_with_33_arms_stays_within_its_width_and_its_matrix_can_be_read(browser: Browser, many: Path, width: int) -> None:
    browser.open(many, width=width)
    assert browser.problems() == []
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate("document.querySelectorAll('.raw .matrix.small tbody tr').length") == COUNT
    if width == 1280:
        assert browser.evaluate("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('.raw .scroll'))")
    browser.evaluate("document.querySelector('.raw .matrix td[title]').click()")
    told = browser.evaluate("document.querySelector('.told').textContent")
    assert re.fullmatch(r"\S+ minus \S+: \S+ points \(.*\), p \S+, (better|worse|inconclusive)", told)
    visible = "[...document.querySelectorAll('#answer-cards article:not([hidden]) .answer')].filter(a => !a.hidden).length"
    assert browser.evaluate(visible) == 6 * 6, "six prompts, the baseline and the five best"
    browser.evaluate("document.querySelector('#answer-filters [name=all]').click()")
    assert browser.evaluate(visible) == 6 * COUNT
    browser.evaluate("document.querySelector('#answer-filters [name=none]').click()")
    assert browser.evaluate(visible) == 0


def _remark(rule: str, **seeds: tuple[int, float]) -> dict:
    words = {
        "limit": 0.5,
        "sentence": "s",
        "measures": f"share of {rule}",
        "means": "this is <bad>",
        "normal": "never",
        "fix": "less `beta`",
    }
    return {"rule": rule, **words, "seeds": {seed: {"step": step, "value": value} for seed, (step, value) in seeds.items()}}


def test_training_warnings_are_one_row_per_rule() -> None:
    results = read(
        {
            "arms": {
                "grpo": {"warnings": [_remark("cuts", **{"0": (12, 0.61), "2": (30, 0.55)})]},
                "dpo": {"warnings": [_remark("falls", **{"1": (40, 0.7)}), _remark("cuts", **{"0": (3, 0.9)})]},
                "sft": {},
            },
            "stage_warnings": {"reward_models/rm/seed-0": [_remark("falls", **{"0": (7, 0.8)})]},
        }
    )
    cuts, falls = warnings_by_rule(results, STYLES)
    assert [(name, fired(warning)) for name, _, warning in cuts] == [
        ("grpo", "seed 0 from step 12 (0.61), seed 2 from step 30 (0.55)"), ("dpo", "seed 0 from step 3 (0.9)"),
    ]  # fmt: skip
    assert [(name, style is None) for name, style, _ in falls] == [("dpo", False), ("reward_models/rm/seed-0", True)]
    assert ("Something was said while grpo and dpo trained", "training") in cautions(results, [])
    assert warnings_by_rule(read({"arms": {"sft": {}}}), STYLES) == []


def test_the_page_shows_remarks_and_early_ends_as_text(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    end = {"step": 31, "of": 120, "rule": "kl", "value": 51.0, "limit": 50, "sentence": "it is <far> away"}
    results["arms"]["grpo"] |= {"warnings": [_remark("cuts", **{"0": (12, 0.61)})], "stopped": {"1": end}}
    (folder / "results.json").write_text(json.dumps(results))
    evenhand.report.write(folder)
    page = (folder / "report.html").read_text()
    assert "Said while training" in page
    assert "This is &lt;bad&gt;. Normal: never." in page
    assert "Try: less <code>beta</code>." in page
    assert "seed 1: stopped at step 31 of 120 because it is &lt;far&gt; away" in page
