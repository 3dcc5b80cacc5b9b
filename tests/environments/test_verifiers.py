"""Environments of the `verifiers` library, through a stand-in with its interface: of now, and of its older versions."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from evenhand.environments import registry, verifiers_adapter
from evenhand.errors import UserError
from evenhand.protocols import Action
from evenhand.types import Message, Prompt

PROMPT = Prompt(content=(Message("user", "Guess a number."),), meta={"answer": "4", "info": {"most": 9}})


class Rubric:
    async def score_rollout(self, state):
        said = [m["content"] for m in state["completion"] if m["role"] == "assistant"]
        state["reward"] = 1.0 / len(said) if said[-1] == state["answer"] else 0.0
        state["metrics"] = {"right": float(said[-1] == state["answer"])}


class Guess:
    """A game of guessing, as a MultiTurnEnv is."""

    system_prompt = "Say one digit."
    rubric = Rubric()
    oai_tools = None

    async def setup_state(self, state):
        state["tries"] = 0
        return state

    async def is_completed(self, state):
        return bool(state["completion"]) and state["completion"][-1]["content"] == state["answer"]

    async def env_response(self, messages, state):
        assert messages[0]["role"] == "system"
        assert messages[-1]["role"] == "assistant"
        state["tries"] += 1
        return [{"role": "user", "content": "No."}]


class Older(Guess):
    """Asked with the messages first, it returns the state beside its messages; all of it without waiting."""

    def setup_state(self, state):
        return {**state, "tries": 0}

    def is_completed(self, messages, state, **kwargs):
        return len(messages) > 2 and messages[-1]["content"] == state["answer"]

    def env_response(self, messages, state, **kwargs):
        return [{"role": "user", "content": "No."}], {**state, "tries": state["tries"] + 1}


@pytest.fixture(params=[Guess, Older], ids=["now", "older"])
def environment(request, monkeypatch):
    loaded = []

    def load_environment(name, **options):
        loaded.append((name, options))
        return request.param()

    monkeypatch.setitem(sys.modules, "verifiers", SimpleNamespace(load_environment=load_environment))
    verifiers_adapter._load.cache_clear()
    settings = {"kind": "verifiers", "id": "guess", "options": {"digits": 1}, "turns": 3}
    registry.check(settings, where="environment")
    made = [registry.build(settings, seed=0) for _ in range(2)]
    assert loaded == [("guess", {"digits": 1})], "once per process"
    yield made[0]
    verifiers_adapter._load.cache_clear()


def test_a_game_is_played_to_its_end_and_scored_once(environment):
    shown = environment.reset(PROMPT)
    assert shown.content == (Message("system", "Say one digit."), *PROMPT.content)
    first = environment.step(Action("3"))
    assert (first.messages, first.reward, first.done) == ((Message("user", "No."),), 0.0, False)
    last = environment.step(Action("4"))
    assert (last.messages, last.reward, last.done) == ((), 0.5, True)
    assert environment.state["tries"] == 1


def test_the_last_turn_that_the_limits_allow_is_scored(environment):
    environment.reset(PROMPT)
    reply = environment.step(Action("3", last=True))
    assert (reply.reward, reply.done) == (0.0, True)
    assert environment.state["metrics"] == {"right": 0.0}


def test_tool_calls_are_read_off_the_text(environment):
    environment.reset(PROMPT)
    environment.step(Action('<tool_call>{"name": "look", "arguments": {"at": 3}}</tool_call>'))
    said = environment.state["completion"][0]
    assert said["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at": 3}'}


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "verifiers", None)
    verifiers_adapter._load.cache_clear()
    with pytest.raises(UserError, match="verifiers is not installed"):
        registry.build({"kind": "verifiers", "id": "guess"}, seed=0)
