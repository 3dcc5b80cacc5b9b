"""What is drawn is what was recorded."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np

from evenhand.report.plots.curves import METRICS, curve_figures, mean_over_seeds, other_metrics
from evenhand.report.plots.frontier import gold_frontier, reward_frontier
from evenhand.report.plots.phases import mean_seconds
from evenhand.report.plots.signals import best_of_n_figure, length_figures
from evenhand.results.record_parts import BestOfNPoint, LengthLeaning
from tests.report.given import parsed, summarise

RESULTS = {"baseline": "sft", "arms": {"sft": {"kl": 0.0, "reward": 0.0}, "grpo": {"win_rate": 0.6, "kl": 2.0, "reward": 3.0}}}


def rows(*points: tuple[int, float, float]) -> list[dict[str, float]]:
    return [{"step": step, "kl": kl, "reward": reward} for step, kl, reward in points]


def test_the_frontier_is_a_mean_over_seeds_at_each_step() -> None:
    curves = {"grpo": {"0": rows((1, 0.0, 0.0), (2, 1.0, 1.0)), "1": rows((1, 0.0, 2.0), (2, 3.0, 5.0))}}
    figure = reward_frontier(summarise(RESULTS), curves)
    assert figure is not None
    assert gold_frontier(summarise(RESULTS)) is None, "no gold anywhere"
    assert figure.csv.splitlines() == ["arm,kind,kl,reward", "grpo,path,0,1", "grpo,path,2,3", "sft,end,0,0", "grpo,end,2,3"]


def test_a_metric_nobody_recorded_has_no_figure_and_an_unknown_one_keeps_its_name() -> None:
    curves = {"grpo": {"0": [{"step": 1, "reward": 1.0, "flat": 0.25}, {"step": 2, "reward": None, "flat": 0.5}]}}
    styles = {arm.name: arm.style for arm in summarise(RESULTS).arms}
    assert [figure.title for figure in curve_figures(curves, styles, METRICS)] == ["Reward"]
    assert [metric.title for metric in other_metrics(curves)] == ["flat"]
    (figure,) = curve_figures(curves, styles, METRICS)
    assert figure.csv.splitlines() == ["step,grpo seed 0", "1,1"]  # the missing value is not drawn


def test_the_thick_line_is_the_mean_where_all_seeds_have_a_value() -> None:
    steps, mean = mean_over_seeds([(np.arange(4.0), np.array([0.0, 1, 2, 3])), (np.arange(2.0), np.array([4.0, 5]))])
    assert (steps.tolist(), mean.tolist()) == ([0, 1], [2, 3])


def test_seconds_are_means_over_seeds_and_a_phase_a_seed_lacks_took_no_time() -> None:
    ledgers = {"grpo": {"0": {"seconds": {"train": 2.0, "generate": 4.0}}, "1": {"seconds": {"train": 4.0}}}, "sft": {"0": {}}}
    assert mean_seconds(ledgers) == {"grpo": {"train": 3.0, "generate": 2.0}}


def test_a_figure_of_a_run_holds_every_recorded_step(run_dir: Path, page: str) -> None:
    link = page.split('download="curve-kl.csv"')[0].rsplit("base64,", 1)[1].split('"')[0]
    lines = [line.split(",") for line in base64.b64decode(link).decode().splitlines()]
    recorded = [json.loads(line)["kl"] for line in (run_dir / "arms/grpo/seed-1/metrics.jsonl").read_text().splitlines()]
    drawn = [float(line[lines[0].index("grpo seed 1")]) for line in lines[1:]]
    np.testing.assert_allclose(drawn, recorded, rtol=1e-5)


def test_best_of_n_and_the_heat_map_hold_their_numbers() -> None:
    points = [
        {"n": n, "gold": 0.25 * n, "ci95": [0.2 * n, 0.3 * n], "reward": 1.0 * n, "kl_bound": 0.5, "prompts": 9} for n in (1, 2)
    ]
    figure = best_of_n_figure(parsed(dict[str, tuple[BestOfNPoint, ...]], {"rm": points}))
    assert figure is not None
    assert figure.csv.splitlines() == [
        "scorer,n,gold,ci95_low,ci95_high,reward,kl_bound", "rm,1,0.25,0.2,0.3,1,0.5", "rm,2,0.5,0.4,0.6,2,0.5",
    ]  # fmt: skip
    assert best_of_n_figure({}) is None
    of_arm = best_of_n_figure(parsed(dict[str, tuple[BestOfNPoint, ...]], {"rm": points}), "dpo beta=0.1")
    assert of_arm is not None
    assert "dpo beta=0.1" in of_arm.title
    used = re.findall(r'id="([^"]*)"|url\(#([^)]*)\)', of_arm.wide.inline)
    assert all(re.fullmatch(r"[\w.-]+", own or other) for own, other in used), "an arm's name may hold blanks, an id may not"
    heat = {"counts": [[0, 2], [1, 0]], "correlation": [-1.0, 0.0, 1.0], "length": [5.0, 8.0, 30.0]}
    raw = {"prompts": 3, "mean_correlation": -0.2, "share_above": 1 / 3, "heatmap": heat}
    (drawn,) = length_figures({"my rm": parsed(LengthLeaning, raw)})
    assert drawn.name == "length-my-rm"
    assert "8,30,-1,0,2" in drawn.csv.splitlines()
    assert "above 0.3 in 33%" in drawn.caption
    assert length_figures({}) == []
