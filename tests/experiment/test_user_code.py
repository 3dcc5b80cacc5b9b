"""Where an experiment's own code is looked for: files, modules and plugins alike, beside the file in which the key stands."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from evenhand import plugins
from evenhand.errors import UserError
from evenhand.rewards import get
from evenhand.run_experiment import Run, prepare, record
from evenhand.types import Completion, Group, Prompt

EXPERIMENT = """
name: mine
baseline: dpo
data: {world: quickstart, sizes: {demonstrations: 24, preferences: 24, prompts: 24, heldout_preferences: 12}}
model: {pretrain: {documents: 40, train: {steps: 3, prompts_per_step: 8}}}
sft: {train: {steps: 2, prompts_per_step: 8}}
train: {steps: 2, prompts_per_step: 4}
lengths: {prompt: 24, completion: 12}
rewards:
  mine: {kind: function, path: REWARD}
arms:
  short: {method: rloo, reward: mine}
  dpo: {method: dpo}
judge: {reward: gold, self_test: 0}
evaluation: {prompts: 4}
"""
GROUP = Group(prompt=Prompt(content="p"), completions=(Completion(content="x"),))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command runs in a folder that has none of the files."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = list(sys.path)
    yield
    plugins.activate(())
    sys.path[:] = path


def rewards(folder: Path, value: float, name: str = "rewards.py") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"def score(prompt, completion):\n    return {value}\n")


def experiment(folder: Path, path: str = "rewards.py:score", name: str = "mine.yaml", text: str = EXPERIMENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text.replace("REWARD", path))
    return folder / name


def value(run: Run, name: str = "mine") -> float:
    return get(run.loaded.value.rewards[name])([GROUP])[0].values[0]


def trained(run: Run) -> str:
    return next(n.key for n in run.plan.nodes if n.name.startswith("arms/short"))


@pytest.mark.parametrize("source", ["rewards.py", "sub/rewards.py", "my_own_rewards", "my_own_package.rewards"])
def test_a_function_is_found_beside_the_experiment(tmp_path: Path, source: str) -> None:
    rewards(tmp_path / "a", 2.5, source if source.endswith(".py") else f"{source.replace('.', '/')}.py")
    assert value(prepare(experiment(tmp_path / "a", f"{source}:score"))) == 2.5


def test_with_extends_beside_the_file_in_which_the_key_stands(tmp_path: Path) -> None:
    rewards(tmp_path / "base", 1.0)
    rewards(tmp_path / "over", 2.0)
    experiment(tmp_path / "base")
    other = "extends: ../base/mine.yaml\nrewards: {other: {kind: function, path: 'rewards.py:score'}}\n"
    run = prepare(experiment(tmp_path / "over", text=other))
    assert (value(run, "mine"), value(run, "other")) == (1.0, 2.0)


def test_plugins_follow_the_same_rule(tmp_path: Path) -> None:
    rewards(tmp_path / "base", 1.0)
    rewards(tmp_path / "over", 2.0)
    experiment(tmp_path / "base", text=EXPERIMENT + "plugins: [rewards.py]\n")
    run = prepare(experiment(tmp_path / "over", text="extends: ../base/mine.yaml\n"))
    assert [p.source for p in run.plan.plugins] == [tmp_path / "base" / "rewards.py"]


def test_on_the_command_line_and_in_plain_data_in_the_working_directory(tmp_path: Path) -> None:
    rewards(tmp_path / "a", 1.0)
    rewards(Path(), 3.0)
    path = experiment(tmp_path / "a")
    assert value(prepare(path)) == 1.0
    assert value(prepare(path, ["rewards.mine.path=rewards.py:score"])) == 3.0
    assert value(prepare(yaml.safe_load(path.read_text()))) == 3.0


@pytest.mark.parametrize(
    ("source", "looked"), [("none.py", "there is no file {}/none.py"), ("no_such_one", "among what is installed and in {}\n")]
)
@pytest.mark.parametrize("plugin", [False, True])
def test_what_is_missing_is_said_with_the_place_of_the_key_and_where_it_was_looked_for(
    tmp_path: Path, source: str, looked: str, plugin: bool
) -> None:
    rewards(tmp_path / "a", 1.0)
    rewards(Path(), 3.0, "none.py")  # the working directory has one: it is not meant
    own = f"{EXPERIMENT}plugins: [{source}]\n" if plugin else EXPERIMENT
    with pytest.raises(UserError) as caught:
        prepare(experiment(tmp_path / "a", "rewards.py:score" if plugin else f"{source}:score", text=own))
    said = str(caught.value)
    assert looked.format(tmp_path / "a") in said
    assert f"{tmp_path}/a/mine.yaml:{16 if plugin else 10}: " in said
    assert "relative to the file that names it" in said


def test_where_the_files_are_is_in_no_key_but_what_they_say_is(tmp_path: Path) -> None:
    rewards(tmp_path / "a", 1.0)
    run = prepare(experiment(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert trained(prepare(tmp_path / "b" / "mine.yaml")) == trained(run)
    assert trained(prepare(experiment(tmp_path / "c", f"{tmp_path}/b/rewards.py:score"))) == trained(run)
    rewards(tmp_path / "b", 1.5)
    assert trained(prepare(tmp_path / "b" / "mine.yaml")) != trained(run)


def test_two_files_of_one_name_do_not_change_places(tmp_path: Path) -> None:
    rewards(tmp_path / "a", 1.0)
    rewards(tmp_path / "a", 2.0, "sub/rewards.py")
    mix = "{kind: weighted, parts: [{name: x, reward: {kind: function, path: 'P:score'}, weight: 1.0},"
    mix += " {name: y, reward: {kind: function, path: 'Q:score'}, weight: 3.0}]}"
    text = EXPERIMENT.replace("{kind: function, path: REWARD}", mix)
    pair = ("rewards.py", "sub/rewards.py")
    runs = [prepare(experiment(tmp_path / "a", text=text.replace("P", p).replace("Q", q))) for p, q in (pair, pair[::-1])]
    assert [value(run) for run in runs] == [7.0, 5.0]
    assert trained(runs[0]) != trained(runs[1])


def test_a_neighbour_that_it_imports_is_found_and_in_the_key(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    path = experiment(folder, "rewards.py:score")
    (folder / "rewards.py").write_text("from my_own_numbers import score\n")
    rewards(folder, 1.0, "my_own_numbers.py")
    before = prepare(path)
    assert value(before) == 1.0
    rewards(folder, 2.0, "my_own_numbers.py")
    assert trained(prepare(path)) != trained(before)
    del sys.modules["my_own_numbers"]


def test_the_record_of_a_run_finds_them_from_anywhere(tmp_path: Path) -> None:
    rewards(tmp_path / "a", 1.0)
    run = prepare(experiment(tmp_path / "a"), out=tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experiment.json").write_text(json.dumps(record(run), default=str))
    again = prepare(tmp_path / "run")
    assert value(again) == 1.0
    assert trained(again) == trained(run)
