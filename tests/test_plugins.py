"""A user's files: found, fingerprinted, imported by the command and its workers, and in the key of what uses them only."""

from __future__ import annotations

import builtins
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from evenhand import plugins
from evenhand.errors import UserError
from evenhand.methods import build
from evenhand.objectives.pairwise import PairLoss
from evenhand.rewards import REWARDS, get
from evenhand.run_experiment import Run, prepare

REWARD = """
from evenhand.rewards import reward
from evenhand.rewards.pointwise import pointwise

@reward()
def {name}(context, limit: int = {limit}):
    return pointwise(lambda prompt, completion: float(len(completion.text) < limit), name="{name}")
"""
EXPERIMENT = """
name: plugged
baseline: dpo
plugins: {plugins}
data: {{world: quickstart, sizes: {{demonstrations: 24, preferences: 24, prompts: 24, heldout_preferences: 12}}}}
model: {{pretrain: {{documents: 40, train: {{steps: 3, prompts_per_step: 8}}}}}}
sft: {{train: {{steps: 2, prompts_per_step: 8}}}}
train: {{steps: 2, prompts_per_step: 4}}
lengths: {{prompt: 24, completion: 12}}
arms:
  short: {{method: rloo, reward: {reward}}}
  dpo: {{method: dpo}}
judge: {{reward: gold, self_test: 0}}
evaluation: {{prompts: 4}}
runtime: {{workers: 1}}
"""


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    path = list(sys.path)
    yield
    plugins.activate(())
    sys.path[:] = path


def reward_file(folder: Path, name: str = "brevity", limit: int = 9, file: str = "my_rewards.py") -> Path:
    (folder / file).write_text(REWARD.format(name=name, limit=limit))
    return folder / file


def experiment(folder: Path, names: str = "[my_rewards.py]", reward: str = "brevity") -> Path:
    path = folder / "plugged.yaml"
    path.write_text(EXPERIMENT.format(plugins=names, reward=reward))
    return path


def keys(run: Run) -> dict[str, str]:
    return {node.name: node.key for node in run.plan.nodes}


def loaded(folder: Path, *names: str, **limits: float) -> tuple[plugins.Plugin, ...]:
    found = plugins.resolve(names, folder)
    plugins.activate(found, **limits)
    return found


def test_a_file_registers_and_goes_again(tmp_path: Path) -> None:
    reward_file(tmp_path)
    (plugin,) = loaded(tmp_path, "my_rewards.py")
    assert get({"kind": "brevity", "limit": 3}).name == "brevity"
    assert REWARDS.entries["brevity"].where == f"{tmp_path / 'my_rewards.py'}:5"
    assert plugins.owner(REWARDS.entries["brevity"].source) == plugin
    assert plugins.owner(REWARDS.entries["length"].source) is None
    plugins.activate(())
    assert "brevity" not in REWARDS
    assert "my_rewards" not in sys.modules


def test_a_rule_of_a_step_is_used_where_it_is_named(tmp_path: Path) -> None:
    rule = "from evenhand.objectives import step_rule\n\n@step_rule()\ndef evenly(step):\n    return {}\n"
    (tmp_path / "rule.py").write_text(rule)
    (plugin,) = loaded(tmp_path, "rule.py")
    assert plugins.used({"loss": "sigmoid", "rule": "evenly"}) == {"rule": plugin.digest}


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    reward_file(tmp_path, "brevity")
    (before,) = loaded(tmp_path, "my_rewards.py")
    reward_file(tmp_path, "terse12")  # as many bytes, within the same second
    (after,) = loaded(tmp_path, "my_rewards.py")
    assert "terse12" in REWARDS
    assert "brevity" not in REWARDS
    assert before.digest != after.digest


def test_what_a_value_names_and_what_it_is_made_of_are_both_used(tmp_path: Path) -> None:
    reward_file(tmp_path)
    (tmp_path / "parts.py").write_text("def loss(chosen, rejected):\n    return rejected - chosen\n")
    first, second = loaded(tmp_path, "my_rewards.py", "parts.py")
    nested = {"parts": [{"reward": {"kind": "brevity"}, "weight": 1.0}]}
    assert plugins.used(nested) == {"my_rewards": first.digest}
    assert plugins.used({"name": "brevity", "kind": "length"}) == {}
    assert plugins.used([None, PairLoss(sys.modules["parts"].loss)]) == {"parts": second.digest}
    assert plugins.used(build("dpo", {}, steps=1, max_tokens=8)) == {}


def test_a_file_changed_under_a_run_is_refused(tmp_path: Path) -> None:
    path = reward_file(tmp_path)
    found = plugins.resolve(["my_rewards.py"], tmp_path)
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match="was changed while the run went on"):
        plugins.activate(found)


def test_neighbours_that_a_file_imports_are_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text("from my_numbers import LIMIT\n")
    (tmp_path / "my_numbers.py").write_text("LIMIT = 3\n")
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    (tmp_path / "mine.py").write_text("def later():\n    import my_parts\n    return my_parts.LIMIT\n")
    (before,) = loaded(tmp_path, "mine.py")
    assert [p.name for p in before.files] == ["mine.py", "my_parts.py", "my_numbers.py"]
    assert sys.modules["mine"].later() == 3
    (tmp_path / "my_numbers.py").write_text("LIMIT = 4\n")
    (after,) = loaded(tmp_path, "mine.py")
    assert after.digest != before.digest


def test_a_module_of_a_package_beside_the_experiment(tmp_path: Path) -> None:
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('found without being run')")
    reward_file(package, file="rewards.py")
    (found,) = plugins.resolve(["my_package.rewards"], tmp_path)
    assert [p.name for p in found.files] == ["rewards.py", "__init__.py"]
    (package / "__init__.py").write_text("")
    loaded(tmp_path, "my_package.rewards")
    assert "brevity" in REWARDS


def test_an_installed_package_brings_its_own_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "our_rewards-1.0.dist-info").mkdir(parents=True)
    (site / "our_rewards-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: our-rewards\nVersion: 1.0\n")
    (site / "our_rewards-1.0.dist-info" / "entry_points.txt").write_text("[evenhand.plugins]\nours = our_rewards\n")
    reward_file(site, "ours", file="our_rewards.py")
    monkeypatch.syspath_prepend(str(site))
    assert plugins.installed() == ["our_rewards"]
    run = prepare(str(experiment(tmp_path, "[]", "ours")))
    assert [p.name for p in run.plan.plugins] == ["our_rewards"]
    assert run.loaded.effective["plugins"] == []


BROKEN = {
    "import": ("import torch\nimport no_such_module_here\n", ":2: .*ModuleNotFoundError: No module named 'no_such_module_here'"),
    "syntax": ("x = 1\ndef (:\n", ":2: this is no Python"),
    "exception": ("def f():\n    return 1 / 0\n\nf()\n", ":2: the plugin cannot be loaded: ZeroDivisionError"),
    "exit": ("import sys\nsys.exit(3)\n", ":2: the plugin cannot be loaded: SystemExit: 3"),
    "slow": (
        "import builtins, time\n\nbuiltins.slow_plugin.set(); time.sleep(10**6)\n",
        ":3: the plugin is not loaded after 0.2 s",
    ),
}


@pytest.fixture
def at_its_slow_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for a plugin's import is its slow line, not a time; other imports end by themselves."""
    reached = threading.Event()
    monkeypatch.setattr(builtins, "slow_plugin", reached, raising=False)

    class Thread(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            while self.is_alive() and not reached.is_set():
                super().join(0.01)

    monkeypatch.setattr("evenhand.plugins.threading.Thread", Thread)


@pytest.mark.usefixtures("at_its_slow_line")
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_one_message_with_file_and_line(fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text, message = BROKEN[fault]
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "mine.py")) + message) as told:
        loaded(tmp_path, "mine.py", patience=0.1 if fault == "slow" else 60, limit=0.2 if fault == "slow" else 60)
    assert told.value.fix
    assert ("loading plugin mine.py ..." in caplog.text) == (fault == "slow")
    assert "mine" not in sys.modules


def test_what_a_broken_plugin_had_registered_is_gone(tmp_path: Path) -> None:
    path = reward_file(tmp_path)
    path.write_text(path.read_text() + "\n1 / 0\n")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        loaded(tmp_path, "my_rewards.py")
    assert "brevity" not in REWARDS


def test_two_plugins_with_one_name_are_refused(tmp_path: Path) -> None:
    reward_file(tmp_path, file="first.py")
    reward_file(tmp_path, file="second.py")
    with pytest.raises(UserError, match=r"second.py:5: a reward 'brevity' is registered twice\n.*first.py:5"):
        loaded(tmp_path, "first.py", "second.py")
    reward_file(tmp_path, name="length", file="second.py")
    with pytest.raises(UserError, match=r"second.py:5: a reward 'length' is registered twice"):
        loaded(tmp_path, "second.py")


def test_files_that_are_not_there_and_names_nobody_knows(tmp_path: Path) -> None:
    for names, message in (
        ("[no.py]", r"plugged.yaml:4: plugins: there is no file .*no.py"),
        ("[no_such_package.judges]", r"plugged.yaml:4: plugins: there is no module 'no_such_package.judges'"),
        ("[my_rewards.py]", r"arms.short.reward.*unknown reward 'brevty'\n.*did you mean 'brevity'"),
        ("7", "plugins"),
    ):
        reward_file(tmp_path)
        with pytest.raises(UserError, match=message):
            prepare(str(experiment(tmp_path, names, "brevty")))


def test_the_source_is_in_the_key_of_what_uses_it_and_of_nothing_else(tmp_path: Path) -> None:
    reward_file(tmp_path)
    path = experiment(tmp_path)
    before = keys(prepare(str(path)))
    (tmp_path / "my_rewards.py").write_text((tmp_path / "my_rewards.py").read_text() + "# a remark\n")
    after = keys(prepare(str(path)))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"arms/short/seed-0", "generations/short/seed-0", "verdicts/short/seed-0"}


def test_a_plugin_that_is_not_used_changes_no_key(tmp_path: Path) -> None:
    reward_file(tmp_path)
    other = "{kind: length, unit: words}"
    assert keys(prepare(str(experiment(tmp_path, "[]", other)))) == keys(prepare(str(experiment(tmp_path, reward=other))))


def test_a_run_again_from_its_record_finds_its_plugins_and_stages(tmp_path: Path) -> None:
    reward_file(tmp_path)
    run = prepare(str(experiment(tmp_path)))
    again = tmp_path / "elsewhere" / "experiment.json"
    again.parent.mkdir()
    again.write_text(json.dumps({"effective": run.loaded.effective}))
    assert keys(prepare(str(again.parent))) == keys(run)


def test_the_command_says_it_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "my_rewards.py").write_text("import no_such_module_here\n")
    command = [sys.executable, "-m", "evenhand.cli", "run", str(experiment(tmp_path)), "--plan"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"{tmp_path / 'my_rewards.py'}:1: the plugin cannot be loaded: ModuleNotFoundError")
    assert "Traceback" not in done.stderr


JUDGE = """
from evenhand.judges import judge

@judge("mine")
class Mine:
    name, revision = "mine", "1"

    def __init__(self, context, tie: int = 0):
        self.tie = tie
"""


def test_a_judge_s_source_and_settings_are_in_the_verdicts_alone(tmp_path: Path) -> None:
    (tmp_path / "my_judge.py").write_text(JUDGE)
    text = EXPERIMENT.format(plugins="[my_judge.py]", reward="gold").replace("{reward: gold, self_test: 0}", "{kind: mine, TIE}")
    path = tmp_path / "judged.yaml"
    path.write_text(text.replace("TIE", "self_test: 0"))
    first = keys(prepare(str(path)))
    (tmp_path / "my_judge.py").write_text(JUDGE + "# a remark\n")
    second = keys(prepare(str(path)))
    path.write_text(text.replace("TIE", "self_test: 0, tie: 3"))
    third = keys(prepare(str(path)))
    verdicts = {"verdicts/short/seed-0", "verdicts/dpo/seed-0"}
    assert {n for n in first if first[n] != second[n]} == verdicts
    assert {n for n in second if second[n] != third[n]} == verdicts
    path.write_text(text.replace("TIE", "ties: 3"))
    with pytest.raises(UserError, match=r"judged.yaml:\d+: judge.*unknown key 'ties' for 'mine'\n.*did you mean 'tie'"):
        prepare(str(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("engine: lcal", r"unknown engine 'lcal'\n.*did you mean 'local'"),
        ("engine: {kind: local, rows: 3}", "unknown key 'rows'"),
        ("tracker: line", r"unknown tracker 'line'\n.*did you mean 'lines'"),
        ("tracker: {kind: lines, pth: x}", r"unknown key 'pth' for 'lines'\n.*did you mean 'path'"),
    ],
)
def test_engines_and_trackers_are_checked_before_anything_runs(line: str, message: str, tmp_path: Path) -> None:
    path = experiment(tmp_path, "[]", "gold")
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=r"plugged.yaml:\d+: " + line.partition(":")[0] + ".*" + message):
        prepare(str(path))


def test_the_local_engine_by_name_is_the_default(tmp_path: Path) -> None:
    path = experiment(tmp_path, "[]", "gold")
    default = keys(prepare(str(path)))
    path.write_text(path.read_text() + "engine: {kind: local}\n")
    assert keys(prepare(str(path))) == default
