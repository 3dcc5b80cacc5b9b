"""Several runs beside each other: what differs, whether they are on one scale, how far apart, on a page and in a terminal."""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import evenhand
from evenhand.errors import UserError
from evenhand.report.side_by_side.page import html_of_runs, settings_csv, write_comparison
from evenhand.report.side_by_side.series import runs_shown
from evenhand.report.side_by_side.tables import cost_table, evaluation_rows
from evenhand.report.side_by_side.terminal import RunsTable
from evenhand.report.side_by_side.text import headline
from evenhand.results.side_by_side.compared import RunsCompared, compare_runs
from evenhand.results.side_by_side.settings import Touches, _touches
from evenhand.stats import paired_difference
from tests.report.browser import Browser
from tests.report.test_report_page import outline
from tests.report.two_runs import BASE, EFFECTIVE, PROMPTS, write_run

HIGH = {"name": "high", "arms": {**EFFECTIVE["arms"], "dpo": {"method": "dpo", "beta": 0.5}}}
BETTER = (1.0, 1.0, 0.5, 1.0)


def pair(tmp_path: Path, **second: Any) -> RunsCompared:
    return compare_runs([write_run(tmp_path / "low"), write_run(tmp_path / "high", **{"effective": HIGH, **second})])


def test_settings_that_differ_stand_side_by_side_and_the_others_are_held_equal(tmp_path: Path) -> None:
    found = pair(tmp_path).settings
    assert [(r.key, r.values, r.touches) for r in found.apart] == [
        ("arms.dpo.beta", ("0.1", "0.5"), Touches.TRAINING),
        ("name", ("low", "high"), Touches.NOTHING),
    ]
    equal = dict(found.equal)
    assert equal["train.learning_rate"] == "0.0001"
    assert equal["versions.torch"] == "2.13.0"
    assert equal["reward_models.rm.per_seed"] == "false"
    assert {s.name: s.same for s in found.stages} == {"data": True, "sft": True, "arms/dpo": False}


@pytest.mark.parametrize(
    ("key", "touches"),
    [
        ("train.checkpoint_every", Touches.NOTHING), ("arms.dpo.train.checkpoint_every", Touches.NOTHING),
        ("runtime.runner", Touches.NOTHING), ("runtime.resources.fit", Touches.NOTHING), ("tracker.project", Touches.NOTHING),
        ("runtime.threads", Touches.TRAINING), ("train.steps", Touches.TRAINING), ("names", Touches.TRAINING),
        ("judge.reward", Touches.MEASURING), ("versions.torch", Touches.VERSIONS),
    ],
)  # fmt: skip
def test_what_a_setting_bears_on(key, touches):
    assert _touches(key) is touches


def test_a_key_that_one_run_lacks_and_a_table_that_one_run_lacks_are_one_row_each(tmp_path: Path) -> None:
    config = {"arms": {"sft": {"method": "start"}, "dpo": {"method": "dpo"}, "ipo": {"method": "ipo", "tau": 0.2}}, "name": "low"}
    found = pair(tmp_path, effective=config).settings
    assert [(r.key, r.values) for r in found.apart] == [
        ("arms.dpo.beta", ("0.1", "not set")),
        ("arms.ipo", ("not set", "method: ipo, tau: 0.2")),
    ]


def test_folders_of_this_machine_are_not_shown(tmp_path: Path) -> None:
    found = pair(tmp_path, effective={"model": {"path": "/home/me/models/tiny"}}).settings
    assert [r.values[1] for r in found.apart if r.key == "model"] == ["path: tiny"]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ({"prompts": ("one?", "two?", "three?", "five?")}, ("other held-out prompts",)),
        ({"baseline": (*BASE[:3], "another")}, ("another baseline, or one that answers otherwise",)),
        ({"effective": {"judge": {"reward": "rm"}}}, ("another judge",)),
        ({"judge": {"name": "gold", "template_sha": "ab"}}, ("another judge",)),
        ({"effective": {"judge": {"reward": "gold", "self_test": 0}}}, ()),
        ({"effective": {"evaluation": {"prompts": 4, "sampling": {"temperature": 0.5}}}}, ()),
    ],
    ids=["prompts", "baseline", "judge", "template", "self-test", "sampling"],
)
def test_what_puts_runs_on_other_scales(tmp_path: Path, second: dict[str, Any], reason: tuple[str, ...]) -> None:
    found = pair(tmp_path, **second)
    assert found.yardstick.reasons == {"low": (), "high": reason}
    assert found.comparable("high") is (not reason)
    gap = found.difference("dpo", "high")
    assert gap is not None
    assert (gap.note == "not comparable", gap.ci95 is None) == (bool(reason), bool(reason))


def test_a_judge_that_is_a_reward_model_is_another_one_where_its_weights_are(tmp_path: Path) -> None:
    judge = {"judge": {"reward": "rm"}}
    first = write_run(tmp_path / "low", effective=judge, keys={"reward_models/rm": "k1"})
    for key, same in (("k1", True), ("k2", False)):
        second = write_run(tmp_path / key, effective=judge, keys={"reward_models/rm": key})
        assert compare_runs([first, second]).comparable(key) is same


def test_a_run_that_recorded_no_experiment_is_on_no_known_scale(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "low"), write_run(tmp_path / "high")
    (second / "experiment.json").unlink()
    found = compare_runs([first, second])
    assert found.yardstick.reasons["high"] == ("it is not known whether one judge judged both",)
    assert found.settings.unrecorded == ("high",)
    assert headline(found).title == "low and high: what differs is not recorded"


def test_the_same_arm_of_two_runs_is_paired_prompt_by_prompt(tmp_path: Path) -> None:
    gap = pair(tmp_path, outcomes=BETTER).difference("dpo", "high")
    assert gap is not None
    assert gap.difference == 0.5  # (1 + 0 + 0 + 1) / 4
    assert gap.ci95 == paired_difference([BETTER], [(0.0, 1.0, 0.5, 0.0)]).ci95
    assert gap.seeds == (0,)


def test_differences_are_over_the_seeds_that_both_runs_have(tmp_path: Path) -> None:
    found = pair(tmp_path, outcomes=BETTER, seeds=(0, 3))
    gap = found.difference("dpo", "high")
    assert gap is not None
    assert (gap.seeds, gap.difference) == ((0,), 0.5)
    assert found.yardstick.remarks("high", found.labels) == ("other seeds",)
    assert found.comparable("high")


def test_without_a_common_seed_nothing_is_paired(tmp_path: Path) -> None:
    found = pair(tmp_path, seeds=(5,))
    assert found.yardstick.reasons["high"] == (
        "the baseline's answers cannot be set beside each other: no seed in common, or not recorded",
    )
    gap = found.difference("dpo", "high")
    assert gap is not None
    assert (gap.difference, gap.note) == (None, "not comparable")


def test_without_the_verdicts_prompt_by_prompt_there_is_no_difference_and_a_reason(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "low"), write_run(tmp_path / "high")
    for path in (first / "store").rglob("verdicts.json"):
        path.unlink()
    found = compare_runs([first, second])
    gap = found.difference("dpo", "high")
    assert gap is not None
    assert (gap.difference, gap.note) == (None, "its verdicts prompt by prompt are not there")
    assert found.comparable("high")


def test_answers_of_one_artifact_are_said_to_be_the_same(tmp_path: Path) -> None:
    keys = {"generations/dpo/seed-0": "same"}
    first, second = (write_run(tmp_path / name, keys=keys) for name in ("low", "high"))
    gap = compare_runs([first, second]).difference("dpo", "high")
    assert gap is not None
    assert (gap.difference, gap.ci95, gap.note) == (0.0, None, "the very same answers")


def test_runs_that_cannot_be_compared_are_refused_with_a_way_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "low")
    with pytest.raises(UserError, match="one run alone") as error:
        compare_runs([run])
    assert "evenhand compare" in error.value.fix
    with pytest.raises(UserError, match="named twice"):
        compare_runs([run, tmp_path / "low" / ".." / "low"])
    with pytest.raises(UserError, match=r"has no results\.json"):
        compare_runs([run, tmp_path])
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "experiment.json").write_text("{}")
    with pytest.raises(UserError, match="not done"):
        compare_runs([run, tmp_path / "begun"])
    with pytest.raises(UserError, match="this is a folder"):
        write_comparison(compare_runs([run, write_run(tmp_path / "high")]), tmp_path)


def test_the_headline_says_what_differs_and_what_was_found(tmp_path: Path) -> None:
    said = headline(pair(tmp_path, outcomes=BETTER))
    assert said.title == "low and high differ in 1 setting"
    assert said.sentences[0] == "It is arms.dpo.beta."
    twice = {**HIGH, "arms": {**HIGH["arms"], "dpo": {"method": "dpo", "beta": 0.5, "label_smoothing": 0.1}}}
    assert headline(pair(tmp_path / "more", effective=twice)).sentences[0].startswith("They are arms.dpo.beta and ")
    assert said.sentences[1].startswith("high is on low's scale: one judge")
    assert said.sentences[2] == "No arm that the runs share can be told apart between them."


def test_a_difference_that_excludes_zero_is_told(tmp_path: Path) -> None:
    many = [f"prompt {i}?" for i in range(40)]
    given = {"prompts": many, "texts": ["good"] * 40, "baseline": ["base"] * 40}
    first = write_run(tmp_path / "low", outcomes=[0.0] * 40, **given)
    second = write_run(tmp_path / "high", outcomes=[1.0] * 30 + [0.0] * 10, **given)
    assert headline(compare_runs([first, second])).sentences[-1].startswith("dpo in high is better than in low: +75.0 points")


def test_differences_between_runs_are_corrected_for_how_many_they_are(tmp_path: Path) -> None:
    """Six wins of six prompts are told apart alone (p = 0.031 by signs), and not among four such differences."""
    many = [f"prompt {i}?" for i in range(40)]
    given = {"prompts": many, "texts": ["good"] * 40, "baseline": ["base"] * 40}
    better, arms = [1.0] * 6 + [0.5] * 34, ("a", "b", "c", "d")
    one, four = (
        compare_runs([
            write_run(tmp_path / f"low{len(some)}", outcomes=[0.5] * 40, arms=some, **given),
            write_run(tmp_path / f"high{len(some)}", outcomes=better, arms=some, **given),
        ])
        for some in (arms[:1], arms)
    )  # fmt: skip
    alone = one.difference("a", "high1")
    together = four.difference("a", "high4")
    assert alone is not None
    assert together is not None
    own = paired_difference([better], [[0.5] * 40])
    assert (alone.contrasts, together.contrasts) == (1, 4)
    assert alone.p_holm == pytest.approx(own.p)
    assert together.p_holm == pytest.approx(min(1.0, 4 * own.p)), "Holm's first step among four equal ones"
    assert alone.ci95_simultaneous == pytest.approx(own.interval(0.95))
    assert together.ci95_simultaneous is not None
    low, high = own.interval(1 - 0.05 / 4)
    assert together.ci95_simultaneous[1] == pytest.approx(high)
    assert together.ci95 == pytest.approx(own.ci95)
    if 4 * own.p >= 0.05:
        assert (together.ci95_simultaneous[0], together.verdict) == (pytest.approx(low), "inconclusive")
    assert "not corrected" not in html_of_runs(four)


def test_a_conversation_is_shown_with_its_roles(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": "Said before."},
        {"role": "user", "content": "And?"},
    ]
    runs = [write_run(tmp_path / name) for name in ("low", "high")]
    for path in runs[0].rglob("generations.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[0]["prompt"] = turns
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = html_of_runs(compare_runs(runs))
    assert '<span class="role">assistant</span>Said before.' in page


def test_the_page_is_well_formed_safe_and_asks_for_nothing(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)> \x1b[31mred \u202ereversed"
    found = pair(tmp_path, texts=(hostile, "good two", "good three", "good four"))
    page = html_of_runs(found)
    shape = outline(page)
    assert shape.stack == []
    assert [name for name, count in shape.ids.items() if count > 1] == []
    assert shape.references <= set(shape.ids)
    assert shape.tags["img"] == 0
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "&lt;img src=x onerror=alert(1)&gt; \\x1b[31mred \\u202ereversed" in page
    assert "default-src 'none'" in html.unescape(page)
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert {"settings", "scale", "verdicts", "reward-models", "training", "cost", "answers"} <= set(shape.ids)
    assert html_of_runs(found) == page


def test_answers_to_the_same_prompt_stand_beside_each_other_with_their_words_marked(tmp_path: Path) -> None:
    texts = ("a good short answer", "good two", "good three", "good four")
    found = compare_runs([
        write_run(tmp_path / "low", texts=texts),
        write_run(tmp_path / "high", effective=HIGH, texts=("a good long answer", *texts[1:]), prompts=PROMPTS),
    ])  # fmt: skip
    page = html_of_runs(found)
    assert "a good <mark>short </mark>answer" in page
    assert "a good <mark>long </mark>answer" in page
    assert page.count("<mark>") == 2
    assert "dpo \u00b7 low" in page


def test_prompts_that_only_one_run_answered_are_not_shown_side_by_side(tmp_path: Path) -> None:
    page = html_of_runs(pair(tmp_path, prompts=("other?", *PROMPTS[1:])))
    assert page.count('<article class="answers"') == 3
    assert "high is not comparable with low: other held-out prompts" in html.unescape(page)


def test_learning_curves_of_both_runs_share_an_axis(tmp_path: Path) -> None:
    page = html_of_runs(pair(tmp_path))
    assert "dpo over training steps for dpo \u00b7 low, dpo \u00b7 high" in page
    assert "stroke-dasharray:5 2" in page  # the second run's stroke, in the legend


def test_costs_and_evaluations_stand_in_rows(tmp_path: Path) -> None:
    safety = {"safety": {"measure": "win rate", "arms": {"dpo": {"rate": 0.25}}}}
    config = {"evaluations": {"safety": {"prompts": "a.jsonl"}}}
    first = write_run(tmp_path / "low", evaluations=safety, effective=config)
    second = write_run(tmp_path / "high", evaluations=safety, effective={"evaluations": {"safety": {"prompts": "b.jsonl"}}})
    shown = runs_shown(compare_runs([first, second]))
    costs = cost_table(shown)
    assert costs is not None
    titles = [unit.title for unit in costs.units]
    cells = [(one.name, dict(zip(titles, row, strict=True))) for one, row in costs.rows]
    assert [name for name, _ in cells] == ["dpo \u00b7 low", "dpo \u00b7 high"]
    assert cells[0][1]["Steps"] == "10"
    assert cells[0][1]["Tokens trained on"] == "1.00 k"
    assert [(r.name, r.values, r.remark) for r in evaluation_rows(shown)] == [
        ("safety: dpo", ("25.0%", "25.0%"), "set otherwise: not comparable")
    ]


def test_the_settings_as_csv(tmp_path: Path) -> None:
    assert settings_csv(pair(tmp_path)) == "key,touches,low,high\narms.dpo.beta,training,0.1,0.5\nname,nothing,low,high\n"


def test_the_terminal_table(tmp_path: Path) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(RunsTable(pair(tmp_path, outcomes=BETTER)))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "low and high differ in 1 setting" in lines
    assert "arms.dpo.beta 0.1 0.5" in lines
    rows = [line for line in lines if line.startswith(("dpo low", "high 87.5%"))]
    assert rows[0] == "dpo low 37.5% 17.5 to 57.5% \u2013 3 2.0 inconclusive"
    assert rows[1].startswith("high 87.5% 67.5 to 107.5% +50.0 (")


def test_from_python(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "low"), write_run(tmp_path / "high", effective=HIGH, outcomes=BETTER)]
    found = evenhand.compare([folders[0], evenhand.load(folders[1])])
    assert found.headline() == "low and high differ in 1 setting"
    frame = found.frame()
    assert frame.loc[("dpo", "high"), "less_first"] == 0.5
    assert frame["comparable"].all()
    assert list(frame.index.get_level_values("arm")) == ["sft", "sft", "dpo", "dpo"]
    assert found.settings_frame().loc["arms.dpo.beta"].to_dict() == {"touches": "training", "low": "0.1", "high": "0.5"}
    assert "arms.dpo.beta" in found._repr_html_()
    assert found.report(tmp_path / "page.html").read_text() == html_of_runs(found)


def test_names_of_runs_and_arms_may_be_hostile(tmp_path: Path) -> None:
    name = '<b>"&$x_1$'
    found = compare_runs([write_run(tmp_path / "<i>", arms=(name,)), write_run(tmp_path / "high", arms=(name,))])
    page = html_of_runs(found)
    assert outline(page).stack == []
    assert "<b>" not in page.split("</style>")[1]
    assert json.dumps(found.labels) == '["<i>", "high"]'


def test_the_command(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "low")
    write_run(tmp_path / "high", effective=HIGH)
    code, out, _ = cli("compare", "low", "high")
    assert code == 0
    assert "low and high differ in 1 setting" in out
    assert "Comparison: comparison.html" in out
    assert "<h1>low and high differ in 1 setting</h1>" in Path("comparison.html").read_text()
    code, _, err = cli("compare", "low", "gone")
    assert (code, "gone: has no results.json" in err) == (2, True)
    code, _, err = cli("compare", "low", "high", "--out", str(tmp_path / "no" / "page.html"))
    assert (code, "there is no folder" in err) == (2, True)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_opens_without_errors_or_sideways_scrolling(browser: Browser, tmp_path: Path, width: int) -> None:
    page = write_comparison(pair(tmp_path, outcomes=BETTER), tmp_path / "comparison.html")
    browser.open(page, width=width)
    assert browser.problems() == []
    assert browser.requests() == []
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate("[...document.querySelectorAll('#answer-cards > article')].filter(a => !a.hidden).length") == 4
