"""People as the judge of a run: it waits for their labels, and the same command goes on."""

from __future__ import annotations

import json

import pytest

from evenhand.errors import Pending, UserError
from evenhand.judges import Comparison, account
from evenhand.judges.agreement import jury_agreement
from evenhand.judges.human import HumanJudge
from evenhand.judges.label_log import LabelLog, answer_name, item_name
from evenhand.labelling.items import wanted
from evenhand.labelling.session import LabellingSession
from evenhand.spec.read import read_experiment
from evenhand.types import Completion, Prompt
from tests.doctor.patients import Ward, pairs

ASK = Prompt(content="?")


def compared(a, b):
    return Comparison(prompt=ASK, a=Completion(content=a), b=Completion(content=b))


def labelled(log, who, shown, scores, word="first"):
    log.add(annotator=who, item=item_name(ASK, shown), answers=[answer_name(t) for t in shown], scores=scores, label=word)


def test_a_verdict_is_what_people_said_whichever_stood_first(tmp_path):
    log = LabelLog(tmp_path / "labels.jsonl")
    labelled(log, "ann", ("x", "y"), (1, 0))
    labelled(log, "ann", ("y", "x"), (1, 0))  # again, turned round: she contradicts herself
    labelled(log, "ann", ("p", "q"), (0, 1), "second")
    judge = HumanJudge(log.path)
    mixed, clear, same, empty = judge([compared("x", "y"), compared("q", "p"), compared("x", "x"), compared("", "x")])
    assert [v.outcome for v in (mixed, clear, same, empty)] == [0.5, 1.0, 0.5, 0.0]
    assert account([mixed, clear])["consistency"] == 0.0
    assert [o.a_first for o in mixed.orders] == [True, False]


def test_people_are_votes_and_absent_ones_abstain(tmp_path):
    log = LabelLog(tmp_path / "labels.jsonl")
    for texts in (("x", "y"), ("p", "q")):
        labelled(log, "ann", texts, (1, 0))
    labelled(log, "bob", ("y", "x"), (1, 0))
    both, one = HumanJudge(log.path)([compared("x", "y"), compared("p", "q")])
    assert (both.outcome, one.outcome) == (0.5, 1.0)
    votes = [v.to_json()["votes"] for v in (both, one)]
    assert votes == [{"ann": 1.0, "bob": 0.0}, {"ann": 1.0, "bob": None}]
    assert jury_agreement(votes)["jury"]["members"]["bob"] == {"win_rate": 0.0, "abstained": 0.5}


def test_too_few_labels_are_waited_for(tmp_path):
    log = LabelLog(tmp_path / "labels.jsonl")
    labelled(log, "ann", ("x", "y"), (), "skip")
    labelled(log, "ann", ("p", "q"), (1, 0))
    asked = [compared("x", "y"), compared("p", "q"), compared("x", "x")]
    with pytest.raises(Pending, match="1 of 3 pairs wait to be labelled by people"):
        HumanJudge(log.path)(asked)
    with pytest.raises(Pending, match="2 of 3 pairs wait to be labelled by 2 people"):
        HumanJudge(log.path, 2)(asked)
    assert [v.invalid for v in HumanJudge(log.path, 0)(asked)] == [True, False, False]


@pytest.fixture
def ward(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ward = Ward(tmp_path, rows=pairs(40))
    ward.experiment |= {
        "seeds": [0], "evaluation": {"prompts": 6},
        "train": {"steps": 4, "prompts_per_step": 4, "learning_rate": 0.1},
        "lengths": {"prompt": 96, "completion": 12}, "judge": {"kind": "human"},
        "arms": {"base": {"method": "start"}, "dpo": {"method": "dpo"}},
        "runtime": {"workers": 0, "device": "cpu"},
    }  # fmt: skip
    return ward


def label_all(run, who, word="first"):
    found = wanted(run)
    session = LabellingSession(found.items, LabelLog(found.labels), people=found.annotators, again=0)
    while (task := session.next(who)) is not None:
        session.answer(who, task.item.name, task.answers, word)
    return found


def test_a_run_waits_for_people_and_the_same_command_goes_on(cli, ward, tmp_path):
    path = ward.write()
    command = ("run", path, "--out", tmp_path / "run", "--unchecked")
    code, _, err = cli(*command)
    assert code == 4, err
    assert f"evenhand label {tmp_path / 'run'}" in err
    assert "wait to be labelled by people" in err
    found = label_all(tmp_path / "run", "ann")
    assert found.labels == tmp_path / "human-labels.jsonl"
    assert 1 <= len(found.items) <= 6
    code, _, err = cli(*command)
    assert code == 0, err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["judge"]["name"], results["judge"]["kind"]) == ("people", "human")
    before = results["arms"]["dpo"]["win_rate"]
    log = LabelLog(found.labels)
    while log.undo("ann"):  # every label is taken back and turned round: the verdicts follow, nothing is trained again
        pass
    label_all(tmp_path / "run", "ann", "second")
    code, _, err = cli(*command)
    assert code == 0, err
    after = json.loads((tmp_path / "run" / "results.json").read_text())["arms"]["dpo"]["win_rate"]
    assert after == pytest.approx(1 - before)


def test_a_jury_of_people_and_a_program_says_how_far_they_agree(cli, ward, tmp_path):
    ward.experiment["judge"] = {
        "kind": "jury", "by": "mean", "self_test": 4, "judges": {"people": {"kind": "human"}, "words": {"reward": "fair"}},
    }  # fmt: skip
    path = ward.write()
    command = ("run", path, "--out", tmp_path / "run", "--unchecked")
    assert cli(*command)[0] == 4
    label_all(tmp_path / "run", "ann")
    code, _, err = cli(*command)
    assert code == 0, err
    judge = json.loads((tmp_path / "run" / "results.json").read_text())["judge"]
    assert set(judge["jury"]["members"]) == {"people", "words"}
    assert judge["jury"]["cohen"][0]["n"] == 6


def test_settings_that_make_no_sense_are_named(ward):
    path = ward.write()
    with pytest.raises(UserError, match="0 annotators"):
        read_experiment(path, ["judge.annotators=0"])
    with pytest.raises(UserError, match="people would have to label every trial"):
        read_experiment(path, ["tune={trials: 4, prompts: 4, seeds: [7]}"])
