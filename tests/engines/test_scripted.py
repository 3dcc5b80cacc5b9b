"""The scripted engine."""

from __future__ import annotations

import pytest

from evenhand.engines.scripted import ScriptedEngine
from evenhand.errors import UserError
from evenhand.types import Finish, Prompt, Sampling


class Words:
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [len(w) for w in text.split()]

    def decode(self, ids) -> str:
        return " ".join("x" * i for i in ids)


def test_answers_are_found_by_text_or_id():
    engine = ScriptedEngine({"Hi": ["one"], "named": ["two"]})
    groups = engine.generate([Prompt(content="Hi"), Prompt(content="other", id="named")], 1, Sampling())
    assert [g.completions[0].content for g in groups] == ["one", "two"]
    assert groups[0].completions[0].tokens is None
    assert groups[0].completions[0].finish is Finish.GIVEN
    assert engine.calls[0][1] == 1


def test_tokens_end_with_the_stop_id_unless_cut():
    engine = ScriptedEngine({"Hi": ["a bb ccc"]}, tokenizer=Words(), stop_id=99)
    whole, cut = engine.generate([Prompt(content="Hi")], 2, [Sampling(max_tokens=4), Sampling(max_tokens=2)])[0].completions
    assert (whole.tokens, whole.finish) == ((1, 2, 3, 99), Finish.STOP)
    assert (cut.tokens, cut.finish) == ((1, 2), Finish.LENGTH)
    assert (cut.content, cut.behaviour_logp) == ("x xx", (0.0, 0.0))


def test_a_missing_answer_is_named():
    with pytest.raises(UserError, match="prompt lost: the script has no answer"):
        ScriptedEngine({}).generate([Prompt(content="?", id="lost")], 1, Sampling())


def test_bad_sampling_is_named():
    with pytest.raises(UserError, match="n is 0"):
        ScriptedEngine({}).generate([], 0, Sampling())
