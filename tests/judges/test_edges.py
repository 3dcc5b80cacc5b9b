"""What servers, thoughts and keys do to a judge: every reply is understood before it is kept, and nothing kills the judging."""

from __future__ import annotations

import gzip
import json
import logging

import httpx
import pytest

from evenhand.errors import UserError
from evenhand.judges import LLM, LLMJudge, Status, account, self_test
from evenhand.judges import template as templates
from evenhand.judges.cache import Cache
from evenhand.judges.chat import ChatReply, Usage
from evenhand.judges.config import problem
from evenhand.judges.endpoint import Endpoint
from evenhand.judges.parse_verdict import Reading, read
from evenhand.judges.selftest import broken, refuse_broken, refuse_failed
from evenhand.judges.thoughts import speech_start
from tests.judges.fake_server import FakeServer, completion, longer, pair

PAIRS = [pair(f"question {i}", "x" * (i + 2), "yyyy") for i in range(6)]
ANALYSIS = "<|channel|>analysis<|message|>"
SECRET = "sk-very-secret-0123456789"


def judge(server, *, template="helpfulness", cache=None, form="text", **options):
    options = {"sleep": lambda seconds: None} | options
    endpoint = Endpoint(url="http://judge/v1", model="m", transport=server.transport, **options)
    return LLMJudge(endpoint, templates.get(template), form=form, cache=cache)


@pytest.mark.parametrize(
    ("template", "finish", "text", "right"),
    [
        ("mt_bench_pair", "length", "<think>I must end with [[A]] if the first is better, [[B]] if not. Let me read", None),
        ("arena_hard", "length", "<think>Options: [[A>>B]], [[A>B]], [[A=B]], [[B>A]], [[B>>A]]. The first one", None),
        ("mt_bench_single", "length", "A mark such as [[5]] is the form. I start with", None),
        ("mt_bench_pair", "stop", "<think>Is it [[A]]? No.</think>\nAssistant B is better. [[B]]", "B"),
        ("mt_bench_pair", "stop", "<think>Is it [[A]]? No.</think>\nAssistant B is better.", None),
        ("tldr", "stop", "Preferred: A", "A"),
        ("mt_bench_pair", "stop", "[[A]]? No.</think>[[B]]", "B"),  # the template opened the block
        ("mt_bench_pair", "stop", "<think>[[A]] it is", None),
        ("mt_bench_pair", "stop", "[THINK]Is it [[A]]?[/THINK][[C]]", "C"),
        ("mt_bench_pair", "stop", f"{ANALYSIS}[[A]]?<|end|><|start|>assistant<|channel|>final<|message|>[[B]]", "B"),
        ("mt_bench_pair", "stop", f"{ANALYSIS}Perhaps [[A]]", None),
        ("mt_bench_pair", "stop", "analysisMaybe [[A]].assistantfinalB wins. [[B]]", "B"),
        ("mt_bench_pair", "stop", "A shows its <think> block, B does not. [[B]]", "B"),  # spoken of, not opened
        ("mt_bench_pair", "content_filter", "[[A]]", None),
        ("mt_bench_pair", "tool_calls", "[[A]]", None),
        ("mt_bench_pair", "max_tokens", "[[A]]", None),
        ("mt_bench_pair", "error", "[[A]]", None),
        ("mt_bench_pair", "eos_token", "[[A]]", "A"),
        ("alpaca_eval", "length", "m", "m"),  # one token was asked for
        ("mt_bench_single", "stop", "[[99999999999]]", None),
    ],
)  # fmt: skip
def test_a_verdict_is_read_only_from_a_finished_reply_and_outside_its_thoughts(template, finish, text, right):
    found = read(templates.get(template), ChatReply(text=text, finish=finish), "text")
    assert (found.label if isinstance(found, Reading) else None) == right


READ_OR_COUNTED = [
    # template, finish, content, the outcome of each order; None: asked again, then counted as unusable
    ("arena_hard", "length", "<think>Options: [[A>>B]], [[A>B]], [[A=B]], [[B>A]], [[B>>A]]. The first one", None),
    ("mt_bench_pair", "stop", "<think>Is it [[A]]? No.</think>\nAssistant B is better. [[B]]", (0.0, 1.0)),
    ("mt_bench_pair", "stop", "<think>Is it [[A]]? No.</think>\nAssistant B is better.", None),
    ("tldr", "stop", [{"type": "text", "text": "Preferred: A"}], (1.0, 0.0)),
]


@pytest.mark.parametrize(("template", "finish", "content", "right"), READ_OR_COUNTED)
def test_a_reply_goes_through_the_whole_judge_read_or_counted(template, finish, content, right, tmp_path):
    """Both orders get this reply: a verdict of one place for each, or none that anybody could read."""
    server = FakeServer(lambda first, second, body: completion(content, finish))
    made = judge(server, template=template, cache=Cache(tmp_path / "kept"), concurrency=1)
    pairs = [pair("How far?", "It is far.", "No idea.")]
    (verdict,) = made(pairs)
    told = account([verdict])
    assert verdict.outcome == 0.5
    if right is None:
        assert told["invalid"] == 1.0
        assert all(order.status is not Status.READ for order in verdict.orders)
        assert server.calls > 2, "it was asked again before it was counted"
    else:
        assert tuple(order.outcome for order in verdict.orders) == right
        assert told["invalid"] == 0.0
        assert server.calls == 2
    asked = server.calls
    (again,) = judge(server, template=template, cache=Cache(tmp_path / "kept"), concurrency=1)(pairs)
    assert again.outcome == verdict.outcome
    assert (server.calls == asked) or right is None, "what was read is kept"


def test_log_probs_are_read_behind_the_thoughts_too():
    top = {"A": -0.1, "B": -2.4}
    words = [
        ("<think>", {}),
        ("Preferred: ", {}),
        ("A", {"A": 0.0}),
        ("</think>", {}),
        ("\n", {}),
        ("Preferred: ", {}),
        ("A", top),
    ]
    found = read(templates.get("helpfulness"), ChatReply(text="x", tokens=tuple(words)), "logprobs")
    assert isinstance(found, Reading)
    assert 0.90 < found.value < 0.91  # e^-0.1 / (e^-0.1 + e^-2.4) = 0.9089
    assert not isinstance(read(templates.get("helpfulness"), ChatReply(text="x", tokens=tuple(words[:3])), "logprobs"), Reading)
    assert not isinstance(
        read(templates.get("alpaca_eval"), ChatReply(text="m", tokens=(("<think>", {"m": -9.0}),)), "logprobs"), Reading
    )


def test_thoughts_end_where_they_end():
    assert speech_start("plain") == 0
    assert speech_start("<think>a</think>b") == 16
    assert speech_start("<thinking>a") is None


ODD = {
    "HTML": httpx.Response(200, text="<html>[[A]]</html>"),
    "empty": httpx.Response(200, text=""),
    "deep": httpx.Response(200, text="[" * 100_000),
    "not an object": httpx.Response(200, text="[1]"),
    "an error with 200": httpx.Response(200, json={"error": {"message": "overloaded"}}),
    "no choices": httpx.Response(200, json={"choices": []}),
    "choices of text": httpx.Response(200, json={"choices": ["Preferred: A"]}),
    "content is a number": httpx.Response(200, json={"choices": [{"message": {"content": 1}}]}),
    "parts of images": httpx.Response(200, json={"choices": [{"message": {"content": [{"type": "image"}]}}]}),
    "finish is a number": httpx.Response(200, json={"choices": [{"message": {"content": "Preferred: A"}, "finish_reason": 3}]}),
    "a 5,000-digit number": httpx.Response(200, text='{"choices": ' + "9" * 5000 + "}"),
    "log-probs of NaN": httpx.Response(
        200,
        text='{"choices": [{"message": {"content": "A"}, "logprobs": '
        '{"content": [{"token": "A", "top_logprobs": [{"token": "A", "logprob": NaN}]}]}}]}',
    ),
    "not UTF-8": httpx.Response(200, content=b'{"choices": "\xff"}'),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_reply_is_asked_again_then_counted_and_never_kept(name, tmp_path):
    def answer(first, second, body):
        return ODD[name] if first == "xx" else longer(first, second, body)

    server, cache = FakeServer(answer), Cache(tmp_path / "c.jsonl")
    verdicts = judge(server, cache=cache)(PAIRS)
    assert [v.invalid for v in verdicts] == [True, False, False, False, False, False]
    assert (verdicts[0].orders[0].status, verdicts[0].orders[1].status) == (Status.INVALID, Status.READ)
    assert verdicts[0].orders[0].why.startswith("not a chat completion")
    assert server.calls == 11 + 3
    assert len(Cache(tmp_path / "c.jsonl")) == 11
    assert account(verdicts)["invalid"] == 1 / 6
    json.dumps([v.to_json() for v in verdicts], ensure_ascii=False).encode("utf-8")


def test_a_body_that_is_not_packed_as_it_says_is_odd(tmp_path):
    lie = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"not packed"))
    bomb = httpx.Response(
        200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(gzip.compress(b" " * (64 << 20), compresslevel=9))
    )
    for odd in (lie, bomb):
        server = FakeServer(lambda first, second, body, odd=odd: odd if first == "xx" else longer(first, second, body))
        verdicts = judge(server)(PAIRS)
        assert [v.invalid for v in verdicts] == [True, False, False, False, False, False]


@pytest.mark.parametrize(
    ("change", "usage"),
    [
        ({"usage": None}, None),
        ({"usage": "12"}, None),
        ({"usage": {"prompt_tokens": "many"}}, None),
        ({"usage": {"prompt_tokens": 10**300}}, None),
        (
            {"usage": {"prompt_tokens": 7, "completion_tokens": None, "prompt_tokens_details": None}},
            Usage(prompt=7, completion=0),
        ),
        ({"usage": {"prompt_tokens": True}}, None),
    ],
)
def test_a_usage_that_is_no_count_is_unknown(change, usage, tmp_path):
    server = FakeServer(lambda first, second, body: completion(longer(first, second, body)) | change)
    made = judge(server, cache=Cache(tmp_path / "c"))
    assert [v.outcome for v in made(PAIRS)] == [0.0, 0.0, 0.5, 1.0, 1.0, 1.0]
    assert {r.usage for r in made.chat.cache._replies.values()} == {usage}
    assert made.chat.spent()["prompt_tokens"] == (84 if usage else None)


def test_content_in_parts_is_their_text_and_lone_surrogates_are_replaced(tmp_path):
    parts = [
        {"type": "thinking", "text": "Preferred: B?"},
        {"type": "text", "text": "Preferred"},
        {"type": "text", "text": ": A \ud800"},
    ]
    server = FakeServer(lambda *_: httpx.Response(200, text=json.dumps(completion(parts))))
    verdicts = judge(server, cache=Cache(tmp_path / "c"))(PAIRS[:1])
    assert [o.raw for o in verdicts[0].orders] == ["Preferred: A �"] * 2
    assert judge(FakeServer(longer), cache=Cache(tmp_path / "c"))(PAIRS[:1]) == verdicts


@pytest.mark.parametrize(
    "refusal",
    [
        httpx.Response(400, json={"error": {"code": "context_length_exceeded", "message": "maximum context length is 4096"}}),
        httpx.Response(413, text="Input is too long for requested model."),
        httpx.Response(400, json={"message": "This model's maximum context length is 4096 tokens. Please reduce the length"}),
    ],
)
def test_an_answer_too_long_for_the_judge_costs_that_pair_and_not_the_judging(refusal, tmp_path):
    server = FakeServer(lambda first, second, body: refusal if "xxxxx" in (first, second) else longer(first, second, body))
    verdicts = judge(server, cache=Cache(tmp_path / "c"))(PAIRS)
    assert [v.invalid for v in verdicts] == [False, False, False, True, False, False]
    assert server.calls == 12  # not asked again
    assert "HTTP 4" in verdicts[3].orders[0].why
    assert len(Cache(tmp_path / "c")) == 10  # a server with a longer window may answer later
    only = judge(server)([PAIRS[3]])
    assert only[0].invalid


@pytest.mark.parametrize("status", [500, 502, 520, 521, 522, 524, 529, 530])
def test_a_gateways_errors_and_a_wait_of_zero_back_off(status):
    replies = [httpx.Response(status, headers={"retry-after": "0"}), httpx.Response(status, headers={"retry-after": "nonsense"})]
    sleeps = []

    def answer(first, second, body):
        return replies.pop(0) if replies else longer(first, second, body)

    judge(FakeServer(answer), concurrency=1, sleep=sleeps.append)(PAIRS[:1])
    assert len(sleeps) == 2
    assert 1.0 <= sleeps[0] <= 1.1
    assert 2.0 <= sleeps[1] <= 2.2


# --- a judge that is no judge ----------------------------------------------------------------------------------------


def answers(n=6):
    return [(p.prompt, p.b) for p in (pair(f"q{i}", "", f"some words of answer {i}") for i in range(n))]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("I cannot compare.", r"not one of its \d+ verdicts could be read \(no verdict in its words\)"),
        ("Preferred: A", "it prefers the answer shown first in both orders, every time"),
        ("Preferred: B", "it prefers the answer shown second in both orders, every time"),
    ],
)
def test_a_judge_that_is_none_is_named_by_its_self_test_and_by_its_verdicts(said, words):
    made = judge(FakeServer(lambda *_: said))
    found = self_test(made, answers())
    assert found["passed"] is False
    with pytest.raises(UserError, match=words):
        refuse_failed(found, made.name)
    with pytest.raises(UserError, match=words):
        refuse_broken(made(PAIRS), made.name)


def test_a_random_judge_is_named_by_its_self_test():
    from evenhand.seeding import rng

    def answer(first, second, body):
        return f"Preferred: {'A' if rng(3, first, second).random() < 0.5 else 'B'}"

    made = judge(FakeServer(answer))
    found = self_test(made, answers(20))
    with pytest.raises(UserError, match=r"a ruined answer loses in \d+% \(50% is chance\)"):
        refuse_failed(found, made.name)
    assert broken(judge(FakeServer(longer))(PAIRS)) == ""


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    return SECRET


def test_a_key_that_a_server_echoes_is_struck_out_before_it_is_kept_or_shown(key, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    server = FakeServer(lambda *_: f"You sent {key}, and cut: {key[:12]}\nPreferred: A")
    verdicts = judge(server, cache=Cache(tmp_path / "c"), key_env="JUDGE_KEY")(PAIRS)
    assert server.headers[0]["authorization"] == f"Bearer {key}"
    shown = json.dumps([v.to_json() for v in verdicts]) + (tmp_path / "c").read_text() + caplog.text
    assert "You sent ***, and cut: ***" in shown
    assert key[:8] not in shown


@pytest.mark.parametrize("before", [0, 280, 290, 295])
def test_a_key_in_a_refusal_is_struck_out_before_the_refusal_is_cut(key, before):
    server = FakeServer(lambda *_: httpx.Response(404, text="x" * before + f" {key} is no key"))
    with pytest.raises(UserError, match="HTTP 404") as error:
        judge(server, key_env="JUDGE_KEY")(PAIRS)
    assert key[:8] not in str(error.value)


def test_a_key_in_an_error_of_the_connection_is_struck_out(key):
    server = FakeServer(lambda *_: httpx.ConnectError(f"cannot reach http://u:{key}@host"))
    with pytest.raises(UserError, match="no answer after 8 attempts") as error:
        judge(server, key_env="JUDGE_KEY")(PAIRS[:1])
    assert key[:8] not in str(error.value)
    assert error.value.__cause__ is None


def test_a_key_with_odd_characters_is_refused_without_showing_it(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-very\nsecret")
    with pytest.raises(UserError, match=r"\$JUDGE_KEY: holds characters") as error:
        judge(FakeServer(longer), key_env="JUDGE_KEY")(PAIRS[:1])
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"endpoint": f"http://user:{SECRET}@host/v1"},
        {"endpoint": f"http://host/v1?api_key={SECRET}"},
        {"endpoint": f"http://host/v1?key={SECRET}"},
        {"endpoint": f"http://host/{SECRET}/v1"},
        {"extra": {"api_key": SECRET}},
        {"extra": {"headers": {"Authorization": f"Bearer {SECRET}"}}},
        {"extra": {"anything": [f"see {SECRET}"]}},
        {"extra": {"password": "short"}},
    ],
)
def test_a_secret_that_is_written_out_is_refused_and_not_repeated(settings):
    error = problem(LLM(kind="llm", model="m", **settings))
    assert error is not None
    assert "a secret is written out" in str(error)
    assert SECRET[:8] not in str(error)


def test_ordinary_extras_and_addresses_are_no_secrets():
    extra = {"stop_token_ids": [1], "tokenizer": "m", "chat_template_kwargs": {"enable_thinking": False}, "max_tokens_key": 3}
    assert problem(LLM(kind="llm", model="m", endpoint="https://host/v1?api-version=2024-10-21", extra=extra)) is None


@pytest.mark.parametrize(
    "address", ["host:8000/v1", "ftp://host", "http://", "http://host:port/v1", "http://[::1/v1", "http://ho st/v1"]
)
def test_an_address_that_is_none_is_said_at_once(address):
    assert "the address is not http" in str(problem(LLM(kind="llm", model="m", endpoint=address)))


def test_a_named_secret_is_filled_in_when_it_is_sent_and_nowhere_else(key, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    addresses = []

    class Server(FakeServer):
        def _handle(self, request):
            addresses.append(str(request.url))
            return super()._handle(request)

    server = Server(lambda *_: f"Preferred: A (sent to {addresses[-1]})")
    endpoint = Endpoint(
        url="http://judge/v1/?code=${JUDGE_KEY}", model="m", transport=server.transport, key_env="NO_SUCH_KEY",
        extra={"session": {"api_key": "${JUDGE_KEY}"}},
    )  # fmt: skip
    made = LLMJudge(endpoint, templates.get("helpfulness"), cache=Cache(tmp_path / "c"))
    verdicts = made(PAIRS[:2])
    assert addresses[0] == f"http://judge/v1/chat/completions?code={key}"
    assert server.bodies[0]["session"] == {"api_key": key}
    shown = json.dumps([v.to_json() for v in verdicts]) + (tmp_path / "c").read_text() + caplog.text + made.name
    assert "${JUDGE_KEY}" in shown
    assert key[:8] not in shown
    assert "HTTP Request: POST http://judge/v1/chat/completions?code=***" in caplog.text


def test_a_named_secret_that_is_not_set_is_said(monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    endpoint = Endpoint(url="http://judge/v1?code=${JUDGE_KEY}", model="m", transport=FakeServer(longer).transport)
    with pytest.raises(UserError, match="JUDGE_KEY is not set"):
        LLMJudge(endpoint, templates.get("helpfulness"))(PAIRS[:1])


# --- the file of answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"not json", b"[]", b"3", b'"text"', b"null", b"[" * 50_000, b"\xff\xfe", b'{"key": 1, "text": "a", "finish": "stop"}',
        b'{"key": "k", "text": ["a"], "finish": "stop"}', b'{"key": "k", "text": "a", "finish": null}',
        b'{"key": "k", "text": "a", "finish": "stop", "usage": {"prompt": "1", "completion": 2}}',
        b'{"key": "k", "text": "a", "finish": "stop", "usage": "no"}',
        b'{"key": "k", "text": "a", "finish": "stop", "tokens": 7}',
        b'{"key": "k", "text": "a", "finish": "stop", "tokens": [["a", {"b": "c"}]]}',
        b'{"key": "k", "text": "a", "finish": "stop", "seconds": NaN}', b'{"key": "k", "text": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_a_line_of_the_cache_that_is_no_answer_is_counted_and_its_question_asked_again(line, tmp_path, caplog):
    path = tmp_path / "c.jsonl"
    judge(FakeServer(longer), cache=Cache(path))(PAIRS)
    path.write_bytes(line + b"\n" + path.read_bytes())
    again = FakeServer(longer)
    assert [v.outcome for v in judge(again, cache=Cache(path))(PAIRS)] == [0, 0, 0.5, 1, 1, 1]
    assert again.calls == 0
    assert "1 lines cannot be read" in caplog.text


def test_a_cache_that_is_no_file_is_said(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UserError, match="is not a file"):
            Cache(path)


def test_a_model_that_writes_data_does_not_write_nothing_instead():
    """An unusable reply is counted by a judge; where texts are asked for, an empty one would be a silent loss."""
    from evenhand.synthesis import chat_asker

    server = FakeServer(lambda *_: httpx.Response(200, text="<html>"))
    endpoint = Endpoint(url="http://judge/v1", model="m", transport=server.transport, sleep=lambda seconds: None)
    with pytest.raises(UserError, match="no answer: not a chat completion: not JSON"):
        chat_asker(endpoint, max_tokens=8)(["Write a poem."])
