"""The page about tuning, and the words on it in a report."""

from __future__ import annotations

import json

import pytest

from evenhand import report
from evenhand.errors import UserError
from evenhand.report.tuning import html, write
from evenhand.results.files import parsed, plain
from evenhand.results.tuning_record import TuningRecord
from tests.report.browser import find_chromium, running
from tests.report.given import cells

LOG = {"log": [1e-5, 1e-3], "linear": None, "points": None}


def trial(number, value, rate, beta, behind=None, error=""):
    return {
        "trial": number, "settings": {"learning_rate": rate, "beta": beta}, "status": "failed" if value is None else "done",
        "error": error, "value": value, "ci95": None if value is None else [value - 0.1, value + 0.1],
        "behind": None if behind is None else {"difference": behind, "ci95": [behind - 0.1, behind + 0.1], "p_holm": 0.5},
        "ledger": {"tokens_trained": 12000, "tokens_generated": 0}, "keys": [],
    }  # fmt: skip


def arm(trials, chosen, alike=(), edges=()):
    best = trials[chosen - 1] if chosen else {"settings": None, "value": None, "ci95": None}
    return {
        "method": "dpo", "space": {"learning_rate": LOG, "beta": [0.1, 0.3]},
        "space_in_words": {"learning_rate": "1e-05 to 0.001 (log)", "beta": "0.1, 0.3"},
        "given": {"learning_rate": 1e-4, "beta": 0.1}, "given_tried": True, "chosen": chosen, "settings": best["settings"],
        "value": best["value"], "ci95": best["ci95"], "alike": list(alike), "edges": list(edges), "trials": trials,
    }  # fmt: skip


FOUND = parsed(TuningRecord, {
    "name": "<b>mine</b>", "description": "", "source": "t.yaml", "hashes": {},
    "measure": "win rate over the baseline", "baseline": "sft", "trials": 3,
    "seeds": [100], "prompts": 100, "sampler": "tpe", "steps": 0.5, "comparison": {"seeds": [0, 1, 2], "prompts": 500},
    "versions": {"evenhand": "0"}, "left_out": {"sft": "it is not trained"},
    "arms": {
        "dpo": arm([trial(1, 0.52, 1e-4, 0.1, -0.11), trial(2, 0.63, 8e-4, 0.3), trial(3, None, 9e-4, 0.1, error="<i>inf</i>")],
                   2, alike=[1], edges=["beta = 0.3 is at the upper end of its space (0.1, 0.3)"]),
        "ipo": arm([trial(n, None, 1e-4, 0.1, error="diverged") for n in (1, 2, 3)], None),
    },
})  # fmt: skip


def test_the_page_says_what_was_chosen_and_how_sure_that_is():
    page = html(FOUND)
    assert "Trial 2 was best: learning_rate 0.0008 and beta 0.3, at 0.630 (0.530 to 0.730)." in page
    assert "The settings as given reached 0.520. The best 2 trials cannot be told apart." in page
    assert "beta = 0.3 is at the upper end of its space (0.1, 0.3): a wider space may hold a better one." in page
    assert "1 of 3 trials failed; they count as the worst." in page
    assert "Every trial failed, so the settings stay as they were given." in page
    assert "sft was not tuned: it is not trained." in page
    assert "Trials had 50% of the training budget" in page
    assert page.index(">0.630<") < page.index(">0.520<"), "best first"


def test_what_others_wrote_is_text():
    page = html(FOUND)
    assert "<i>inf" not in page
    assert "<b>mine" not in page
    assert "&lt;i&gt;inf" in page


def test_a_figure_per_setting_of_an_arm_with_a_value():
    page = html(FOUND)
    assert page.count('<figure id="figure-settings-') == 2
    assert "0.0001 gives 0.52; 0.0008 gives 0.63" in page.replace("0.520", "0.52").replace("0.630", "0.63")


def test_without_a_tuning_there_is_no_page(tmp_path):
    with pytest.raises(UserError, match=r"no tune\.json here"):
        write(tmp_path)


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium")
def test_a_browser_opens_the_page_without_a_complaint(tmp_path):
    (tmp_path / "tune.json").write_text(json.dumps(plain(FOUND)))
    page = write(tmp_path)
    with running(str(find_chromium())) as browser:
        for width in (1200, 400):
            browser.open(page, width=width)
            assert browser.problems() == []
            assert browser.requests() == []
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"


def test_a_row_of_the_report_holds_budget_space_choice_and_remarks(tmp_path):
    raw = {
        "trials": 8, "failed": 1, "trial": 2, "settings": {"learning_rate": 3e-4, "beta": 0.1}, "value": 0.61, "ci95": [0.5, 0.7],
        "space": {"learning_rate": "1e-05 to 0.001 (log)"}, "as_given": None, "alike": 2, "edges": ["kl = 0.1 is at the edge"],
        "changed": {"beta": 0.2},
    }  # fmt: skip
    tuning = {"measure": "win rate", "sampler": "tpe", "seeds": [9], "prompts": 40, "arms": {"dpo": raw, "gone": raw}}
    given = {"baseline": "sft", "arms": {"sft": {}, "dpo": {}}}
    (tmp_path / "results.json").write_text(json.dumps({**given, "tuning": tuning}))
    _, row = cells(report.write(tmp_path).read_text().replace("was tuned</h2>", "was tuned</h3>"), "How each arm was tuned")
    name, trials, space, chosen, *values = row
    assert (name, trials, space) == ("dpo", "8, 1 failed", "learning_rate 1e-05 to 0.001 (log)")
    assert values == ["0.610 (0.500 to 0.700)", "–"]
    assert chosen.split("; ") == [
        "learning_rate 0.0003, beta 0.1",
        "kl = 0.1 is at the edge: a wider space may hold a better one",
        "the best 3 trials cannot be told apart",
        "changed since: beta",
    ]
    (tmp_path / "results.json").write_text(json.dumps(given))
    assert "How each arm was tuned" not in report.write(tmp_path).read_text()
