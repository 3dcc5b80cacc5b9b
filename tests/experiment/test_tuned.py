"""What a comparison says of how its arms were tuned."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from evenhand.data.jsonl import write_groups
from evenhand.results.tuning import tuned_alike, tuning, untuned
from evenhand.spec.read import read_experiment
from evenhand.types import Group, Prompt

ARM = {
    "trials": 6, "trial": 2, "settings": {"learning_rate": 3e-4}, "space": {"learning_rate": {"log": [1e-5, 1e-3]}}, "value": 0.6,
    "ci95": [0.5, 0.7], "as_given": 0.55, "alike": 3,
}  # fmt: skip
GIVEN = {
    "name": "t",
    "seeds": [0],
    "data": {"world": "quickstart"},
    "model": {"pretrain": {"documents": 10, "train": {"steps": 1}}},
    "sft": {"train": {"steps": 1}},
    "train": {"steps": 2, "learning_rate": 3e-4},
    "arms": {"sft": {"method": "start"}, "dpo": {"method": "dpo"}, "ipo": {"method": "ipo"}},
    "tune": {},
    "tuned": {
        "measure": "win rate over the baseline", "sampler": "tpe", "seeds": [100], "prompts": 2, "validation": "name",
        "arms": {"dpo": ARM, "ipo": ARM},
    },
}  # fmt: skip


class Plan:
    def __init__(self, experiment):
        self.experiment = experiment

    def __getitem__(self, name):
        return SimpleNamespace(key="")


@pytest.fixture
def done(tmp_path):
    """A finished comparison on prompts "a" and "b", with "c" and "d" set apart."""
    write_groups(tmp_path / "validation_prompts.jsonl", [Group(prompt=Prompt(content=c, id=c), completions=()) for c in "cd"])

    class Done:
        arms = ("dpo", "ipo")
        verdicts = {arm: {0: {"prompt_id": ["a", "b"]}} for arm in arms}  # noqa: RUF012
        store = SimpleNamespace(path=lambda key: tmp_path)
        name = "name"

        def __call__(self, *overrides):
            self.plan = SimpleNamespace(experiment=read_experiment(GIVEN, overrides).value)
            self.plan = type(
                "Plan", (), {"experiment": self.plan.experiment, "__getitem__": lambda s, n: SimpleNamespace(key="")}
            )()
            return self

        def seeds(self, arm):
            return (0,)

        def has(self, node):
            return True

        def load(self, node, file):
            return {"prompts": 2, "name": self.name}

    return Done()


def test_arms_that_were_tuned_alike_are_said_to_be(done):
    (said,) = tuned_alike(done())
    assert said.startswith("Every trained arm was tuned before: 6 trials each")
    assert untuned(done()) == []
    found = tuning(done())
    assert found.shared_prompts == 0
    assert found.not_tuned == ()
    assert found.arms["dpo"].space == {"learning_rate": "1e-05 to 0.001 (log)"}
    assert found.arms["dpo"].changed == {}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("arms.kto.method=kto", "tuning trials: 6 (dpo, ipo); none (kto)"),
        ("tuned.arms.ipo.trials=12", "tuning trials: 6 (dpo); 12 (ipo)"),
        ("arms.ipo.train.learning_rate=1e-4", "changed after tuning: ipo: learning_rate 0.0003 (now 0.0001)"),
        ("tune=null", "the validation prompts that settings were chosen on are not the ones set apart here"),
    ],
)
def test_unequal_tuning_is_not_held_equal(done, override, said):
    found = untuned(done(override))
    assert len(found) == 1
    assert said in found[0]
    assert tuned_alike(done(override)) == []


def test_other_data_than_were_tuned_on_are_told(done):
    done.name = "another"
    assert "the data are others now" in untuned(done())[0]


def test_a_validation_prompt_that_judges_is_counted(done):
    done.verdicts = {arm: {0: {"prompt_id": ["a", "c"]}} for arm in done.arms}
    assert tuning(done()).shared_prompts == 1


def test_without_tuning_nothing_is_said(done):
    plain = done("tuned=null")
    assert (tuning(plain), tuned_alike(plain), untuned(plain)) == (None, [], [])
