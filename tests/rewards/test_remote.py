"""A reward behind an endpoint: what is sent, what is read, and what is said when the server does not do its part."""

from __future__ import annotations

import json
import math

import httpx
import pytest

from evenhand.errors import UserError
from evenhand.rewards import registry
from evenhand.rewards.remote import RemoteReward
from evenhand.types import Completion, Group, Message, Prompt

URL = "http://127.0.0.1:9/score"


def group(*answers: str, prompt: str = "2+2", **meta: object) -> Group:
    completions = tuple(Completion(content=(Message("assistant", a),)) for a in answers)
    return Group(prompt=Prompt(content=(Message("user", prompt),), meta=meta), completions=completions)


def server(answer, **settings):
    """A reward whose server is `answer(request)`, and the pauses that it made."""
    pauses: list[float] = []
    return RemoteReward(url=URL, transport=httpx.MockTransport(answer), sleep=pauses.append, **settings), pauses


def lengths(request: httpx.Request) -> httpx.Response:
    """Rewards an answer by its length; has none for an empty one."""
    body = json.loads(request.content)
    return httpx.Response(200, json={"rewards": [len(c) or None for c in body["completions"]]})


def test_scores_come_back_in_the_order_of_groups_and_answers():
    reward, pauses = server(lengths, concurrency=3)
    found = reward([group("a", "bbb"), group("cc"), group("", "dddd")])
    assert [f.values for f in found[:2]] == [(1.0, 3.0), (2.0,)]
    assert math.isnan(found[2].values[0])
    assert found[2].values[1] == 4.0
    assert pauses == []


def test_the_server_sees_the_conversation_the_answers_and_the_columns_that_were_asked_for(monkeypatch):
    monkeypatch.setenv("SCORE_KEY", "s3cret")
    seen = []

    def answer(request):
        seen.append((json.loads(request.content), request.headers.get("authorization")))
        return httpx.Response(200, json={"rewards": [1]})

    reward, _ = server(answer, columns=("answer",), key_env="SCORE_KEY")
    reward([group("4", answer=4, hidden="no")])
    body = {"prompt": [{"role": "user", "content": "2+2"}], "completions": ["4"], "meta": {"answer": 4}}
    assert seen == [(body, "Bearer s3cret")]


def test_a_busy_server_is_asked_again_and_then_given_up():
    answers = iter([httpx.Response(503), httpx.Response(429), httpx.Response(200, json={"rewards": [0.5]})])
    reward, pauses = server(lambda request: next(answers))
    assert reward([group("x")])[0].values == (0.5,)
    assert [math.floor(pause) for pause in pauses] == [1, 2], "with a random tenth more"
    dead, pauses = server(lambda request: httpx.Response(503), attempts=3)
    with pytest.raises(UserError, match="no answer after 3 attempts: HTTP 503"):
        dead([group("x")])
    assert [math.floor(pause) for pause in pauses] == [1, 2]


def test_a_server_that_says_how_long_it_is_busy_is_left_alone_for_so_long():
    answers = iter([httpx.Response(429, headers={"retry-after": "7"}), httpx.Response(200, json={"rewards": [0.5]})])
    reward, pauses = server(lambda request: next(answers))
    assert reward([group("x")])[0].values == (0.5,)
    assert pauses == [7.0]


@pytest.mark.parametrize(
    "text",
    ['{"rewards": [1]}', '{"rewards": [1, "2"]}', '{"rewards": [true, 1]}', '{"scores": [1, 2]}', "oops", "[1, 2]",
     '{"rewards": [1, 1e999]}', '{"rewards": [1, 2, 3]}'],
)  # fmt: skip
def test_an_answer_that_is_not_a_number_for_each_is_refused(text):
    reward, _ = server(lambda request: httpx.Response(200, text=text))
    with pytest.raises(UserError, match="with 2 numbers"):
        reward([group("a", "b")])


def test_messages_never_hold_the_key(monkeypatch):
    monkeypatch.setenv("SCORE_KEY", "s3cret-value")
    reward, _ = server(lambda request: httpx.Response(403, text="no: s3cret-value"), key_env="SCORE_KEY")
    with pytest.raises(UserError, match="HTTP 403") as error:
        reward([group("a")])
    assert "s3cret-value" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "host/score"}, "the address is not"), ({"url": "http://host/${KEY}"}, "no variables"),
        ({"url": URL, "attempts": 0}, "attempts is 0"), ({"url": URL, "timeout": -1.0}, "timeout is"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        registry.get({"kind": "endpoint", **settings})


def test_a_column_that_is_not_there_and_a_key_that_is_not_set_are_named(monkeypatch):
    monkeypatch.delenv("SCORE_KEY", raising=False)
    with pytest.raises(UserError, match="no column 'answer'"):
        server(lengths, columns=("answer",))[0]([group("a")])
    with pytest.raises(UserError, match="set SCORE_KEY"):
        server(lengths, key_env="SCORE_KEY")[0]([group("a")])


def test_the_registry_makes_one():
    found = registry.get({"kind": "endpoint", "url": URL, "columns": ["answer"]})
    assert isinstance(found, RemoteReward)
    assert (found.url, found.columns) == (URL, ("answer",))
