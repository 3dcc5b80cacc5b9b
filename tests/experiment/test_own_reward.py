"""An arm's own training reward, and the judge that is the same score."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenhand.results.reward_scores import own_reward, trained_on_judge
from evenhand.spec.read import read_experiment

TEXT = """
name: rewarded
data: {{world: quickstart}}
model: {{pretrain: {{documents: 10, train: {{epochs: 1}}}}}}
initial_policy: base
train: {{steps: 1}}
reward_models: {{rm: {{train: {{steps: 1}}}}, other: {{train: {{steps: 2}}}}}}
rewards: {{mixed: {{kind: weighted, parts: [{{reward: rm}}, {{reward: {{kind: length, unit: words}}, weight: -0.1}}]}}}}
arms:
  base: {{method: start}}
  dpo: {{method: dpo}}
  by_rm: {{method: rloo, reward: rm}}
  by_other: {{method: rloo, reward: other}}
  by_mixed: {{method: rloo, reward: mixed}}
  by_gold: {{method: rloo, reward: gold}}
judge: {{reward: {judge}}}
"""


def experiment(tmp_path: Path, judge: str):
    path = tmp_path / "e.yaml"
    path.write_text(TEXT.format(judge=judge))
    return read_experiment(path).value


@pytest.mark.parametrize(
    ("judge", "arms"),
    [
        ("gold", ("by_gold",)),
        ("rm", ("by_rm", "by_mixed")),
        ("mixed", ("by_rm", "by_mixed")),
        ("{kind: length, unit: words}", ("by_mixed",)),
        ("vader", ()),
    ],
)
def test_arms_that_were_trained_on_what_judges_them(tmp_path, judge, arms):
    assert trained_on_judge(experiment(tmp_path, judge)) == arms


def test_only_an_arm_with_a_reward_has_a_training_reward(tmp_path):
    made = experiment(tmp_path, "gold")
    found = {arm: own_reward(made, arm, {"rm": 1.5, "other": -2.0}, 7.0) for arm in made.arms}
    assert found == {"base": None, "dpo": None, "by_rm": 1.5, "by_other": -2.0, "by_mixed": None, "by_gold": 7.0}
