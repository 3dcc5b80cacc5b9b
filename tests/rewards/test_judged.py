"""A language model as a reward: grades, tournaments and rubrics, against a chat in the test; what is read is logged."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest

from evenhand import rewards
from evenhand.errors import UserError
from evenhand.judges import LLMJudge
from evenhand.judges import template as templates
from evenhand.judges.chat import ChatReply
from evenhand.plan.graph import reward_code
from evenhand.rewards import judged
from evenhand.rewards.judged import JudgedReward, criterion
from evenhand.rewards.rubric import Criterion, Rubric
from evenhand.types import Completion, Group, Prompt


class Chat:
    """Answers by a function of the question's text, and remembers what it was asked."""

    def __init__(self, answer) -> None:
        self.answer, self.asked, self.identity = answer, [], {"model": "in the test"}

    def cost(self, reply: ChatReply) -> float:
        return 0.0

    def complete(self, requests):
        for n, request in enumerate(requests):
            text = request.messages[-1].content
            self.asked.append(text)
            yield n, self.answer(text)


def made(answer, template, **how) -> JudgedReward:
    return JudgedReward(partial(LLMJudge, Chat(answer), template, attempts=1, **how), template)


def group(*texts: str) -> Group:
    return Group(prompt=Prompt(content="How many?"), completions=tuple(Completion(content=t) for t in texts))


def answer_in(text: str) -> str:
    return text.split("answer, beginning]\n")[1].split("\n[The assistant's answer, end]")[0]


def yes_or_no(text: str) -> ChatReply:
    return ChatReply(text="Verdict: YES" if any(c.isdigit() for c in answer_in(text)) else "Verdict: no.")


def test_a_single_template_grades_each_answer():
    reward = made(lambda text: ChatReply(text=f"Rating: [[{len(answer_in(text))}]]"), templates.get("mt_bench_single"))
    found = reward([group("ab", "abcd"), group("abc")])
    assert [s.values for s in found] == [(2.0, 4.0), (3.0,)]


def test_what_cannot_be_read_is_not_scored():
    reward = made(lambda text: ChatReply(text="I would rather not."), templates.get("mt_bench_single"))
    assert all(math.isnan(v) for v in reward([group("a", "b")])[0].values)


def test_a_pair_template_is_a_tournament():
    """The longer answer wins, whatever its place: the Borda scores of lengths 1, 3 and 2."""

    def longer(text: str) -> ChatReply:
        first, second = (text.split(f"<answer {x}>\n")[1].split(f"\n</answer {x}>")[0] for x in "AB")
        return ChatReply(text=f"Preferred: {'A' if len(first) > len(second) else 'B'}")

    assert made(longer, templates.get("helpfulness"))([group("a", "aaa", "aa")])[0].values == (0.0, 1.0, 0.5)


def test_a_judged_rubric_by_hand():
    """Weights 3 for a number, -1 for being rude: each criterion is asked by itself, parsed, and a part of the score."""
    chat = Chat(lambda text: ChatReply(text="**Verdict:** YES" if "fool" in answer_in(text) else "NO"))
    template = criterion("It is rude.")
    rude = JudgedReward(lambda: LLMJudge(chat, template, attempts=1), template)
    rubric = Rubric({
        "number": Criterion(reward=made(yes_or_no, criterion("It names a number.")), weight=3.0, least=0.5),
        "rude": Criterion(reward=rude, weight=-1.0, least=0.5),
    })  # fmt: skip
    found = rubric([group("It is 7.", "7, you fool.", "Many, fool.", "Many.")])[0]
    assert found.values == pytest.approx((1.0, 2 / 3, -1 / 3, 0.0))
    assert found.parts["number"] == (1.0, 1.0, 0.0, 0.0)
    assert found.parts["rude"] == (0.0, 1.0, 1.0, 0.0)
    assert len(chat.asked) == 4
    assert all("It is rude." in text and "It names" not in text for text in chat.asked)


def test_by_log_probs_it_is_the_probability_of_yes():
    """p(yes) = .3 + .1, p(no) = .4 over their spellings: .4 / .8."""
    tokens = (("Yes", {"Yes": math.log(0.3), " YES": math.log(0.1), "No": math.log(0.4), "Maybe": math.log(0.2)}),)
    reward = made(lambda text: ChatReply(text="Yes", tokens=tokens), criterion("It is short."), form="logprobs")
    assert reward([group("a")])[0].values == pytest.approx((0.5,))


def test_braces_in_an_answer_stay_as_they_are():
    seen = []
    reward = made(lambda text: seen.append(text) or ChatReply(text="YES"), criterion("It has {answer} in it."))
    reward([group("{question}")])
    assert answer_in(seen[0]) == "{question}"


# ---- of an experiment file -----------------------------------------------------------------------------------------

LOCAL = {"kind": "local", "path": "somewhere", "verdict": "logprobs"}


def test_a_rubric_of_an_experiment_file_opens_its_model_once_it_is_asked(monkeypatch):
    opened = []
    monkeypatch.setattr(judged, "build", lambda settings, *, opened, template: LLMJudge(Chat(yes_or_no), template))
    spec = {"kind": "rubric", "judge": {**LOCAL, "verdict": "text"}, "criteria": [
        {"ask": "It names a number.", "weight": 2}, {"reward": {"kind": "length", "unit": "words"}, "least": 3, "name": "long"},
    ]}  # fmt: skip
    reward = rewards.get(spec, open_model=lambda path: opened.append(path))
    assert opened == []
    found = reward([group("It is 7.", "7", "No idea.")])[0]
    assert found.values == pytest.approx((1.0, 2 / 3, 0.0))
    assert set(found.parts) == {"It names a number.", "It names a number./reward", "long", "long/reward"}
    assert opened == ["somewhere"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"kind": "judge", "judge": {"kind": "locl", "path": "x"}}, "unknown kind of judge 'locl'"),
        ({"kind": "judge", "judge": {**LOCAL, "template": "no_such"}}, "no template 'no_such'"),
        ({"kind": "judge", "judge": LOCAL, "rule": "bordo"}, "unknown rule 'bordo'"),
        ({"kind": "judge", "judge": {**LOCAL, "pth": "y"}}, "unknown key 'pth'"),
        ({"kind": "rubric", "criteria": [{"ask": "Is it?"}]}, "nobody is asked"),
        ({"kind": "rubric", "judge": LOCAL, "criteria": [{"ask": "Is it?", "wight": 1}]}, "unknown key 'wight'"),
        ({"kind": "judge", "judge": {**LOCAL, "verdict": "text", "repeats": 2, "temperature": 0.7}}, "asks each question once"),
    ],
)
def test_what_cannot_be_is_said(spec, told):
    with pytest.raises(UserError, match=told):
        rewards.get(spec)


def test_the_weights_and_the_words_of_a_judging_reward_are_in_the_key(tmp_path):
    """A folder written anew, or a template's file, makes another reward of it."""
    folder, words = tmp_path / "model", tmp_path / "mine.yaml"
    folder.mkdir()
    (folder / "model.safetensors").write_text("one")
    words.write_text(templates.FOLDER.joinpath("criterion.yaml").read_text())
    judge = {"kind": "local", "path": str(folder), "template": str(words)}
    spec = {"kind": "weighted", "parts": [{"reward": {"kind": "judge", "judge": judge}, "weight": 1.0}]}
    found = [reward_code(spec)]
    words.write_text(words.read_text().replace("[Question]", "[Asked]"))
    found.append(reward_code(spec))
    (folder / "model.safetensors").write_text("two!")
    found.append(reward_code(spec))
    changed = [{name for name in a if a[name] != b[name]} for a, b in pairwise(found)]
    assert changed == [{f"judge template {words}"}, {str(folder)}]
    assert reward_code({"kind": "length", "unit": "words"}) == {}
