"""A language model as judge, against a server in the test: orders, reading, retries, cache, cost."""

from __future__ import annotations

import json
import logging
import math

import httpx
import pytest

from evenhand.errors import UserError
from evenhand.judges import LLMJudge, Status, account, self_test
from evenhand.judges import template as templates
from evenhand.judges.cache import Cache
from evenhand.judges.chat import ChatReply, Request
from evenhand.judges.endpoint import Endpoint
from evenhand.judges.prices import Price
from evenhand.types import Message
from tests.judges.fake_server import FakeServer, completion, longer, pair

PAIRS = [pair(f"question {i}", "x" * (i + 2), "yyyy") for i in range(6)]


def judge(server, *, template="helpfulness", cache=None, form="text", **options):
    sleeps = []
    endpoint = Endpoint(url="http://judge/v1", model="m", transport=server.transport, sleep=sleeps.append, **options)
    made = LLMJudge(endpoint, templates.get(template), form=form, cache=cache)
    made.sleeps = sleeps
    return made


def test_both_orders_are_asked_and_averaged():
    server = FakeServer(longer)
    verdicts = judge(server)(PAIRS)
    assert [v.outcome for v in verdicts] == [0.0, 0.0, 0.5, 1.0, 1.0, 1.0]  # 2, 3, 4, ... letters against 4
    assert server.calls == 12
    assert {(o.a_first, o.status) for v in verdicts for o in v.orders} == {(True, Status.READ), (False, Status.READ)}


def test_a_judge_of_places_gives_ties_and_is_found_out():
    verdicts = judge(FakeServer(lambda first, second, body: "Preferred: A"))(PAIRS)
    assert {v.outcome for v in verdicts} == {0.5}
    found = account(verdicts)
    assert (found["p_first"], found["consistency"], found["ties"], found["invalid"]) == (1.0, 0.0, 1.0, 0.0)


def test_rules_settle_without_asking():
    server = FakeServer(longer)
    verdicts = judge(server)([pair("q", "same", "same"), pair("q", "", "text"), pair("q", "text", " \n"), pair("q", "", " ")])
    assert [v.outcome for v in verdicts] == [0.5, 0.0, 1.0, 0.5]
    assert server.calls == 0
    found = account(verdicts)
    assert (found["identical"], found["empty"], found["ties"]) == (0.25, 0.75, 0.5)


def test_unreadable_answers_are_asked_again_warmer_and_longer_then_count_half():
    server = FakeServer(lambda first, second, body: "They are both fine.")
    (verdict,) = judge(server)(PAIRS[:1])
    assert [o.status for o in verdict.orders] == [Status.INVALID] * 2
    assert (verdict.outcome, verdict.invalid, verdict.orders[0].attempts) == (0.5, True, 3)
    assert server.calls == 6
    assert sorted((b["temperature"], b["max_tokens"]) for b in server.bodies) == [(0.0, 160)] * 2 + [(0.7, 320)] * 4


def test_one_order_unreadable_counts_half_for_that_order_only():
    server = FakeServer(lambda first, second, body: "Preferred: A" if first == "xx" else "hm")
    (verdict,) = judge(server)(PAIRS[:1])
    assert verdict.outcome == 0.75
    assert verdict.invalid


def test_busy_servers_are_asked_again_as_they_wish():
    replies = [httpx.Response(429, headers={"retry-after": "7"}), httpx.Response(503), httpx.ConnectError("no"), None]

    def answer(first, second, body):
        said = replies.pop(0) if len(replies) > 1 else None
        return said or "Preferred: A"

    made = judge(FakeServer(answer), concurrency=1)
    made(PAIRS[:1])
    assert made.sleeps[0] == 7.0
    assert 2.0 <= made.sleeps[1] < 2.3  # the second wait of 1, 2, 4, ...
    assert 4.0 <= made.sleeps[2] < 4.5


def test_a_server_that_stays_away_is_named_and_answers_are_kept(tmp_path):
    cache = Cache(tmp_path / "c.jsonl")
    down = False

    def answer(first, second, body):
        return httpx.Response(500) if down else longer(first, second, body)

    judge(FakeServer(answer), cache=cache)(PAIRS[:2])
    down = True
    with pytest.raises(UserError, match="no answer after 8 attempts: HTTP 500"):
        judge(FakeServer(answer), cache=cache)(PAIRS)
    assert len(Cache(tmp_path / "c.jsonl")) == 4


def test_a_second_run_makes_no_call(tmp_path):
    path = tmp_path / "sub" / "cache.jsonl"
    first = judge(FakeServer(longer), cache=Cache(path))(PAIRS)
    again = FakeServer(longer)
    assert judge(again, cache=Cache(path))(PAIRS) == first
    assert again.calls == 0


def test_a_torn_line_is_asked_again_and_only_that(tmp_path):
    path = tmp_path / "cache.jsonl"
    judge(FakeServer(longer), cache=Cache(path))(PAIRS)
    data = path.read_bytes()
    path.write_bytes(data[:-30])
    again = FakeServer(longer)
    verdicts = judge(again, cache=Cache(path))(PAIRS)
    assert again.calls == 1
    assert [v.outcome for v in verdicts] == [0, 0, 0.5, 1, 1, 1]
    lines = path.read_bytes().splitlines()
    assert len(lines) == 13
    assert sum(json.loads(line)["finish"] == "stop" for line in lines if line.endswith(b"}")) == 12


def test_template_model_and_attempt_are_part_of_the_key(tmp_path):
    cache = Cache(tmp_path / "c.jsonl")
    judge(FakeServer(longer), cache=cache)(PAIRS[:1])
    other = FakeServer(lambda first, second, body: "Preferred: A")
    judge(other, template="safety", cache=cache)(PAIRS[:1])
    judge(other, cache=cache, revision="2026")(PAIRS[:1])
    assert other.calls == 4


def test_equal_questions_are_asked_once():
    server = FakeServer(longer)
    judge(server)([PAIRS[0]] * 5)
    assert server.calls == 2


def test_cost_is_counted_and_the_limit_holds_before_sending(tmp_path):
    price = Price(input=10.0, output=100.0)
    verdicts = judge(FakeServer(longer), price=price)(PAIRS)
    assert account(verdicts)["cost_usd"] == pytest.approx(12 * (100 * 10 + 10 * 100) / 1e6)
    server = FakeServer(longer)
    limited = judge(server, price=price, max_cost=0.1, concurrency=3, cache=Cache(tmp_path / "c"))
    with pytest.raises(UserError, match="might cost"):
        limited([pair(f"q{i}", "long answer", "short") for i in range(100)])
    spent = limited.chat.chat.budget.spent
    assert server.calls * 0.002 == pytest.approx(spent)
    assert 0.04 < spent <= 0.1
    assert len(limited.chat.cache) == server.calls  # what was paid for is kept


@pytest.mark.parametrize(("character", "tokens"), [("a", 1 / 3), ("字", 1.0), ("🙂", 4 / 3)])
def test_what_a_question_may_cost_is_not_guessed_too_low_in_other_scripts(character, tokens):
    """A Chinese character is about one token, an English letter a quarter of one."""
    asked = Request(messages=(Message("user", character * 3000),), max_tokens=1)
    assert Price(input=1e6, output=0.0).most(asked) == pytest.approx(3000 * tokens + 16)


def test_unknown_price_is_no_price():
    assert account(judge(FakeServer(longer))(PAIRS))["cost_usd"] is None
    with pytest.raises(UserError, match="price of 'm' is not known"):
        judge(FakeServer(longer), max_cost=1.0)


def test_the_key_is_sent_and_never_shown(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    caplog.set_level(logging.DEBUG)
    server = FakeServer(longer)
    judge(server, cache=Cache(tmp_path / "c"), key_env="JUDGE_KEY")(PAIRS)
    assert server.headers[0]["authorization"] == "Bearer sk-very-secret"
    assert b"secret" not in (tmp_path / "c").read_bytes()
    assert "secret" not in caplog.text
    for status, words in ((401, "was not accepted"), (404, "no model for")):
        refuse = FakeServer(lambda f, s, b, status=status: httpx.Response(status, text="no model for sk-very-secret"))
        with pytest.raises(UserError, match=words) as error:
            judge(refuse, key_env="JUDGE_KEY")(PAIRS)
        assert "secret" not in str(error.value)


def test_a_content_filter_is_an_unusable_verdict():
    refuse = FakeServer(lambda f, s, b: httpx.Response(400, json={"error": {"code": "content_filter"}}))
    (verdict,) = judge(refuse)(PAIRS[:1])
    assert verdict.invalid


def top(**probabilities):
    return [{"token": t, "logprob": math.log(p)} for t, p in probabilities.items()]


def test_log_probs_give_soft_verdicts_at_the_verdicts_token():
    def answer(first, second, body):
        assert body["logprobs"] is True
        p = 0.6 if first == "xx" else 0.3
        tokens = [
            {"token": "Preferred", "top_logprobs": top(Preferred=1.0)},
            {"token": ":", "top_logprobs": top(**{":": 1.0})},
            {"token": " A", "top_logprobs": top(**{" A": p - 0.1, "A": 0.1, " B": 0.8 - p, "x": 0.2})},
        ]
        return completion("Preferred: A", logprobs=tokens)

    (verdict,) = judge(FakeServer(answer), form="logprobs")(PAIRS[:1])
    first, second = verdict.orders
    assert first.outcome == pytest.approx(0.6 / 0.8)
    assert second.outcome == pytest.approx(1 - 0.3 / 0.8)
    assert first.mass == pytest.approx(0.8)
    assert verdict.outcome == pytest.approx((0.75 + 0.625) / 2)
    assert account([verdict])["low_mass"] == 1.0


def test_log_probs_of_one_token_with_a_label_missing():
    reply = completion("m", logprobs=[{"token": "m", "top_logprobs": top(m=0.7, other=0.3)}])
    (verdict,) = judge(FakeServer(lambda *_: reply), template="alpaca_eval", form="logprobs")(PAIRS[:1])
    assert [o.outcome for o in verdict.orders] == [1.0, 0.0]


def test_a_server_without_log_probs_is_refused_not_mixed():
    with pytest.raises(UserError, match="sent no log-probs"):
        judge(FakeServer(longer), form="logprobs")(PAIRS)
    with pytest.raises(UserError, match="does not say which tokens"):
        judge(FakeServer(longer), template="arena_hard", form="logprobs")


def test_single_grades_are_asked_once_per_answer():
    def answer(first, second, body):
        text = body["messages"][-1]["content"].split("beginning]\n")[1].split("\n[The")[0]
        return f"Rating: [[{min(10, len(text))}]]" if text != "bad" else "Rating: [[11]]"

    server = FakeServer(answer)
    verdicts = judge(server, template="mt_bench_single")(
        [pair("q", "xxxxx", "yyy"), pair("q", "zzz", "yyy"), pair("q", "bad", "yyy")]
    )
    assert [v.outcome for v in verdicts] == [1.0, 0.5, 0.5]
    assert [v.invalid for v in verdicts] == [False, False, True]
    assert verdicts[0].score_a == 5
    assert server.calls == 4 + 2  # four different answers; the grade out of range is asked three times


def test_a_server_that_never_sends_a_chat_completion_is_said():
    server = FakeServer(lambda *_: httpx.Response(200, text="<html>"))
    with pytest.raises(UserError, match="none of 12 questions got an answer: not a chat completion: not JSON: '<html>'"):
        judge(server)(PAIRS)
    assert server.calls == 3 * 12  # asked again, not for ever


def one_order(server, **options):
    endpoint = Endpoint(url="http://judge/v1", model="m", transport=server.transport, **options)
    return LLMJudge(endpoint, templates.get("helpfulness"), orders="one")


def test_one_order_costs_half_and_says_what_it_cannot_tell():
    server = FakeServer(longer)
    made = one_order(server, price=Price(input=10.0, output=100.0))
    pairs = [pair(f"question {i}", "x" * (i % 7 + 1), "yyyy") for i in range(60)]
    verdicts = made(pairs)
    assert server.calls == 60
    assert all(len(v.orders) == 1 for v in verdicts)
    assert [v.outcome for v in verdicts if len(v.orders) == 1][:3] == [0.0, 0.0, 0.0]
    shown_first = sum(v.orders[0].a_first for v in verdicts)
    assert 15 < shown_first < 45  # drawn, not fixed
    found = account(verdicts)
    assert found["one_order"] == 1.0
    assert not {"consistency", "p_first"} & found.keys()
    assert found["cost_usd"] == pytest.approx(60 * 0.002)
    again = one_order(FakeServer(longer))(pairs)
    assert [v.orders[0].a_first for v in again] == [v.orders[0].a_first for v in verdicts]
    assert made.revision != judge(FakeServer(longer)).revision


def test_the_self_test_asks_in_both_orders_even_then():
    """A judge of places looks fair on single orders drawn at random; its self-test finds it out."""
    made = one_order(FakeServer(lambda first, second, body: "Preferred: A"))
    answers = [(p.prompt, p.b) for p in (pair(f"q{i}", "", f"some words of answer {i}") for i in range(8))]
    found = self_test(made, answers)
    assert found["p_first"] == 1.0
    assert found["consistency"] == 0.0
    assert found["passed"] is False
    assert made.orders == "one"


def test_what_judging_took_is_summed_once_per_answer(tmp_path):
    path = tmp_path / "c.jsonl"
    first = judge(FakeServer(longer), cache=Cache(path), price=Price(input=10.0, output=100.0))
    first(PAIRS)
    assert first.chat.spent() == {
        "asked": 12, "known": 0, "answers": 12, "prompt_tokens": 1200, "completion_tokens": 120,
        "cost_usd": pytest.approx(12 * 0.002),
    }  # fmt: skip
    again = judge(FakeServer(longer), cache=Cache(path))
    again(PAIRS)
    again(PAIRS)
    spent = again.chat.spent()
    assert (spent["asked"], spent["answers"], spent["prompt_tokens"], spent["cost_usd"]) == (0, 12, 1200, None)


def test_a_line_with_another_bit_is_asked_again(tmp_path, caplog):
    path = tmp_path / "cache.jsonl"
    Cache(path).put("k", ChatReply(text="Preferred: A", finish="stop"), {})
    assert Cache(path).get("k").text == "Preferred: A"
    path.write_bytes(path.read_bytes().replace(b"Preferred: A", b"Preferred: B"))
    assert Cache(path).get("k") is None
    assert "1 lines cannot be read; what they answered is asked again" in caplog.text


def test_lines_of_before_there_were_digests_are_read(tmp_path):
    path = tmp_path / "cache.jsonl"
    Cache(path).put("k", ChatReply(text="Preferred: A", finish="stop"), {})
    row = json.loads(path.read_text())
    del row["digest"]
    path.write_text(json.dumps(row) + "\n")
    assert Cache(path).get("k").text == "Preferred: A"
