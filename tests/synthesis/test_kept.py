"""Work that was stopped goes on where it was, and ends with what an unbroken run would have made."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest

from evenhand.engines.scripted import ScriptedEngine
from evenhand.judges.cache import Cache, CachedChat
from evenhand.judges.chat import ChatReply
from evenhand.synthesis import chat_asker
from evenhand.synthesis.resume_cache import AT_ONCE, ROWS, KeptReward, kept_answers
from evenhand.types import Completion, Group, Message, Prompt, Sampling, Scores

PROMPTS = [Prompt(content=f"say {i}") for i in range(3 * AT_ONCE)]
GROUPS = [Group(prompt=p, completions=(Completion(content="x" * i),)) for i, p in enumerate(PROMPTS)]


class Stopping:
    """A reward (length, and one part) that is stopped after some calls."""

    def __init__(self, calls: int) -> None:
        self.left, self.scored = calls, 0

    def __call__(self, groups):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.scored += len(groups)
        return [
            Scores((math.nan if not g.completions[0].text else len(g.completions[0].text) / 7,), {"n": (1.0,)}) for g in groups
        ]


def test_scores_are_kept_and_not_asked_for_again(tmp_path) -> None:
    first = Stopping(2)
    with pytest.raises(KeyboardInterrupt):
        KeptReward(first, Cache(tmp_path / "kept"), "r")(GROUPS)
    second = Stopping(9)
    found = KeptReward(second, Cache(tmp_path / "kept"), "r")(GROUPS)
    assert (first.scored, second.scored) == (2 * AT_ONCE, AT_ONCE)
    assert math.isnan(found[0].values[0])
    assert [s.values[0] for s in found[1:]] == [i / 7 for i in range(1, len(GROUPS))]
    assert found[3].parts == {"n": (1.0,)}
    other = Stopping(9)
    KeptReward(other, Cache(tmp_path / "kept"), "another reward")(GROUPS[:5])
    assert other.scored == 5


def test_equal_groups_are_scored_once() -> None:
    reward = Stopping(9)
    assert [s.values for s in KeptReward(reward, Cache(), "r")([GROUPS[3]] * 4)] == [(3 / 7,)] * 4
    assert reward.scored == 1


def test_sampled_answers_are_kept_piece_by_piece(tmp_path) -> None:
    engine = ScriptedEngine(lambda prompt, i: f"{prompt.text} {i}")
    sampling = Sampling(seed=3)
    piece = ROWS // 8
    kept_answers(engine.generate, PROMPTS[:piece], 8, sampling, cache=Cache(tmp_path / "kept"), identity="m")
    found = kept_answers(engine.generate, PROMPTS[: 3 * piece], 8, sampling, cache=Cache(tmp_path / "kept"), identity="m")
    assert [len(ids) for ids, _ in engine.calls] == [piece] * 3
    assert [c.text for c in found[70].completions][:2] == ["say 70 0", "say 70 1"]
    kept_answers(engine.generate, PROMPTS[:2], 2, Sampling(seed=4), cache=Cache(tmp_path / "kept"), identity="m")
    assert len(engine.calls) == 4, "another seed is another sample"


class Chatting:
    identity: ClassVar[dict] = {"model": "m"}

    def __init__(self, stop_after: int = 99) -> None:
        self.asked: list[tuple[str, int]] = []
        self.stop_after = stop_after

    def cost(self, reply):
        return None

    def complete(self, requests):
        for i, r in reversed(list(enumerate(requests))):
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append((r.messages[-1].content, r.attempt))
            yield i, ChatReply(text=f" {r.messages[-1].content}! ")


def test_questions_are_asked_once_and_every_call_draws_anew(tmp_path) -> None:
    stopped = Chatting(stop_after=3)
    ask = chat_asker(CachedChat(stopped, Cache(tmp_path / "kept")), max_tokens=5)
    assert ask(["a", "b"]) == ["a!", "b!"]
    with pytest.raises(KeyboardInterrupt):
        ask(["a", (Message("system", "s"), Message("user", "c"))])
    again = Chatting()
    ask = chat_asker(CachedChat(again, Cache(tmp_path / "kept")), max_tokens=5)
    assert ask(["a", "b"]) + ask(["a", (Message("system", "s"), Message("user", "c"))]) == ["a!", "b!", "a!", "c!"]
    assert [text for text, _ in again.asked] == ["a"]
    assert stopped.asked[1][0] == again.asked[0][0] == "a"
    assert stopped.asked[1][1] != again.asked[0][1]
