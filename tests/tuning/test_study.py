"""Tuning from the file to tune.json and tuned.yaml, on stages whose results are known."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import fake_tuning_stages as fakes
import pytest
import yaml

from evenhand.configfile.schema import to_json
from evenhand.runner.local import run
from evenhand.runner.state import RunState
from evenhand.spec.read import read_experiment
from evenhand.tuning import launch
from evenhand.tuning.study import replayed

FILE = """
name: t
seeds: [0, 1]
baseline: sft
data: {world: quickstart}
model: {pretrain: {documents: 10, train: {steps: 1}}}
sft: {train: {steps: 1}}
train: {steps: 20, learning_rate: 1.0e-5}
arms:
  sft: {method: start}
  dpo: {method: dpo, beta: 0.3}
  ipo: {method: ipo, tau: 0.1}
tune:
  trials: 6
  space: {learning_rate: {log: [1.0e-6, 4.0e-4]}}
  arms: {dpo: {beta: [0.05, 0.1, 0.3]}}
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The content of tune.json of the file as it stands, and the folder."""
    folder = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch.run_experiment, "run", partial(run, stages="fake_tuning_stages"))
        patch.delenv("EVENHAND_STORE", raising=False)
        (folder / "t.yaml").write_text(FILE)
        return to_json(launch.execute(launch.prepare(str(folder / "t.yaml"), [], folder / "out"), workers=0)[1]), folder / "out"


@pytest.fixture(autouse=True)
def fake(plain, monkeypatch, tmp_path):
    monkeypatch.setattr(launch.run_experiment, "run", partial(run, stages="fake_tuning_stages"))
    monkeypatch.delenv("EVENHAND_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    fakes.CALLS.clear()
    Path("t.yaml").write_text(FILE)


def tuned(*overrides, out="out"):
    return to_json(launch.execute(launch.prepare("t.yaml", list(overrides), Path(out)), workers=0)[1])


def test_every_arm_that_trains_gets_the_same_number_of_trials_and_the_others_are_named(plain):
    found, _ = plain
    assert {arm: len(raw["trials"]) for arm, raw in found["arms"].items()} == {"dpo": 6, "ipo": 6}
    assert found["left_out"] == {"sft": "it is not trained"}
    assert len({json.dumps(t["settings"]) for t in found["arms"]["dpo"]["trials"]}) == 6, "no setting twice"


def test_the_first_trial_is_the_arm_as_the_file_has_it(plain):
    raw = plain[0]["arms"]["dpo"]
    assert raw["trials"][0]["settings"] == {"learning_rate": 1e-5, "beta": 0.3} == raw["given"]
    outside = tuned("arms.dpo.train.learning_rate=1.0e-3", "tune.trials=3", out="outside")["arms"]["dpo"]
    assert not outside["given_tried"]
    assert all(t["settings"]["learning_rate"] <= 4e-4 for t in outside["trials"])


def test_the_best_is_chosen_and_it_is_the_best_that_the_formula_knows(plain):
    for raw in plain[0]["arms"].values():
        expected = max(raw["trials"], key=lambda t: round(100 * fakes.quality(t["settings"])))
        assert raw["chosen"] == expected["trial"]
        assert raw["value"] == round(100 * fakes.quality(expected["settings"])) / 100
        assert raw["ci95"][0] < raw["value"] < raw["ci95"][1]


def test_trials_that_win_on_nearly_the_same_prompts_cannot_be_told_apart(plain):
    raw = plain[0]["arms"]["dpo"]
    for t in raw["trials"]:
        lost = round(100 * raw["value"]) - round(100 * t["value"])
        if lost <= 1 and t["trial"] != raw["chosen"]:
            assert t["trial"] in raw["alike"], "one prompt of 100 decides nothing"
        if lost >= 40:
            assert t["trial"] not in raw["alike"]


def test_trials_run_under_tuning_seeds_only():
    tuned("tune.seeds=[7, 8]", "tune.trials=2")
    assert {call.split()[-1] for call in fakes.CALLS if not call.startswith("sft")} == {"7", "8"}


def test_a_second_start_runs_nothing_and_writes_the_same(plain):
    _, out = plain
    first = {name: (out / name).read_bytes() for name in ("tune.json", "tuned.yaml")}
    launch.execute(launch.prepare(str(out.parent / "t.yaml"), [], out), workers=0)
    assert fakes.CALLS == []
    assert {name: (out / name).read_bytes() for name in first} == first


@pytest.mark.parametrize("after", [3, 9])
def test_stopped_and_started_again_it_ends_as_if_it_had_not_been_stopped(after, plain, monkeypatch):
    real = fakes.STAGES["fit"]

    def stops(*args, **named):
        if len(fakes.CALLS) == after:
            raise KeyboardInterrupt
        return real(*args, **named)

    monkeypatch.setitem(fakes.STAGES, "fit", stops)
    with pytest.raises(KeyboardInterrupt):
        tuned(out="again")
    assert not Path("again/tune.json").exists()
    done = list(fakes.CALLS)
    monkeypatch.setitem(fakes.STAGES, "fit", real)
    assert tuned(out="again")["arms"] == plain[0]["arms"]
    trials = [call for call in fakes.CALLS if not call.startswith("sft")]
    assert len(trials) == len(set(trials)) == 12, "no trial is run twice"
    assert fakes.CALLS[: len(done)] == done


def test_a_trial_that_fails_counts_as_the_worst_and_stops_nothing():
    found = tuned("tune.space.learning_rate.log=[1.0e-5, 1.0]", "tune.sampler=random")
    for raw in found["arms"].values():
        failed = [t for t in raw["trials"] if t["settings"]["learning_rate"] > fakes.FAILS_ABOVE]
        assert failed, "the space reaches far beyond what converges"
        assert len(raw["trials"]) == 6
        for t in failed:
            assert (t["status"], t["value"]) == ("failed", None)
            assert t["error"].endswith("seed-100: the loss is not finite"), "what happened; where to look differs from run to run"
        assert raw["chosen"] not in {t["trial"] for t in failed}


def test_settings_that_a_method_refuses_together_are_a_trial_that_failed():
    """Two updates cannot go three times over a rollout; the other three pairs can."""
    both = "{dpo: {beta: [0.1, 0.3], learning_rate: [1e-4, 1e-5]}, ipo: {learning_rate: null, updates: [2, 3], epochs: [1, 3]}}"
    grpo = ("arms.ipo={method: grpo, reward: gold}", "tune.sampler=grid", "tune.trials=4", f"tune.arms={both}")
    trials = tuned(*grpo)["arms"]["ipo"]["trials"]
    assert {(t["settings"]["updates"], t["settings"]["epochs"]): t["status"] for t in trials} == {
        (2, 1): "done", (2, 3): "failed", (3, 1): "done", (3, 3): "done",
    }  # fmt: skip


def test_an_arm_whose_trials_all_fail_keeps_its_settings(monkeypatch):
    monkeypatch.setattr(fakes, "FAILS_ABOVE", 0.0)
    found = tuned()
    assert found["arms"]["dpo"]["chosen"] is None
    made = yaml.safe_load(Path("out/tuned.yaml").read_text())
    assert made["arms"]["dpo"] == {"method": "dpo", "beta": 0.3}
    assert "dpo" not in made["tuned"].get("arms", {})


def test_a_share_of_the_budget():
    found = tuned("tune.steps=0.25", "tune.trials=2")
    assert {t["ledger"]["tokens_trained"] for raw in found["arms"].values() for t in raw["trials"]} == {5}


def test_an_arm_that_starts_from_a_tuned_arm_starts_from_what_was_chosen():
    Path("t.yaml").write_text(FILE.replace("ipo, tau: 0.1", "ipo, tau: 0.1, initial_policy: dpo"))
    tuning = launch.prepare("t.yaml", ["tune.trials=2"], Path("out"))
    found = to_json(launch.execute(tuning, workers=0)[1])
    chosen = found["arms"]["dpo"]["trials"][found["arms"]["dpo"]["chosen"] - 1]
    nodes = tuning.study.nodes.by_name
    for trial in tuning.study.trials["ipo"]:
        start = nodes[nodes[trial.fits[100]].inputs["start"]]
        assert [start.key] == chosen["keys"], "the same stage, not another one like it"


def test_a_baseline_that_is_tuned_stays_the_yardstick_as_given():
    tuning = launch.prepare("t.yaml", ["baseline=dpo", "tune.trials=2"], Path("out"))
    launch.execute(tuning, workers=0)
    nodes = tuning.study.nodes.by_name
    trials = [t for trials in tuning.study.trials.values() for t in trials]
    against = {nodes[name].inputs["baseline"] for t in trials for name in t.verdicts.values()}
    (node,) = against
    fitted = nodes[nodes[node].inputs["policy"]]
    assert fitted.spec.parameters["beta"] == 0.3
    assert fitted.spec.train.learning_rate == 1e-5


def test_the_mean_of_a_reward():
    raw = tuned("tune.objective={reward: gold}", "tune.trials=2")["arms"]["dpo"]
    chosen = raw["trials"][raw["chosen"] - 1]
    assert raw["value"] == pytest.approx(10 * fakes.quality(chosen["settings"]) + 0.01)


def test_tuned_yaml_is_an_experiment_with_the_chosen_settings_in_it(plain):
    found, out = plain
    text = (out / "tuned.yaml").read_text()
    made = read_experiment(out / "tuned.yaml").value
    for arm, raw in found["arms"].items():
        assert made.all_arms()[arm].train.learning_rate == raw["settings"]["learning_rate"]
        assert f"# Trial {raw['chosen']} of 6: " in text
        assert made.tuned.arms[arm].trials == 6
    assert made.all_arms()["dpo"].parameters["beta"] == found["arms"]["dpo"]["settings"]["beta"]
    assert made.all_arms()["ipo"].parameters["tau"] == 0.1
    assert made.tune.prompts == 100, "its prompts stay out of training"
    assert "# Not tuned: it is not trained." in text


def test_what_is_planned_is_what_is_run(plain):
    tuning = launch.prepare("t.yaml", [], Path("out"))
    board = replayed(tuning.study)
    assert isinstance(board, RunState)
    known = {arm: [t.settings for t in trials] for arm, trials in tuning.study.trials.items()}
    assert {arm: len(s) for arm, s in known.items()} == {"dpo": 3, "ipo": 3}, "TPE draws half of the trials"
    assert sum(board.coming.values()) == 2 * 3 * 3, "a fit, answers and verdicts of each trial to come"
    assert not Path("out").exists()
    found, out = plain
    for arm, settings in known.items():
        assert [t["settings"] for t in found["arms"][arm]["trials"][:3]] == settings
    assert replayed(launch.prepare("t.yaml", [], out).study).coming == {}


def test_without_a_section_the_defaults_are_taken():
    Path("t.yaml").write_text(FILE[: FILE.index("tune:")])
    tuning = launch.prepare("t.yaml", ["seeds=[3]"], Path("out"))
    assert tuning.study.experiment.tune.trials == 8
    assert tuning.study.spaces["dpo"]["beta"] == (0.01, 0.03, 0.1, 0.3, 0.5)
    assert tuning.study.spaces["dpo"]["learning_rate"].ends == (1e-6, 1e-4), "a decade around the file's own"
