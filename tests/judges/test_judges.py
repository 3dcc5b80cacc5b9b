"""Rewards as judges, models on this machine as judges, accounts, and the self-test."""

from __future__ import annotations

import itertools
import math

import pytest

from evenhand.judges import Comparison, LLMJudge, PreferenceModel, RewardJudge, Status, account, build, paired, self_test
from evenhand.judges import template as templates
from evenhand.judges.agreement import by_length, merged
from evenhand.judges.cache import Cache
from evenhand.judges.chat import Request
from evenhand.judges.endpoint import RateLimit
from evenhand.judges.local import LocalChat
from evenhand.rewards.pointwise import pointwise
from evenhand.types import Completion, Finish, Group, Message, Prompt, Scores
from tests.judges.fake_server import pair

LENGTH = pointwise(lambda prompt, completion: math.nan if "?" in completion.text else float(len(completion.text)), name="length")


def test_a_missing_score_is_half_and_flagged_never_a_loss():
    verdicts = RewardJudge(LENGTH, name="length")(
        [pair("q", "xx", "y"), pair("q", "?", "y"), pair("q", "x", "?"), pair("q", "x", "y")]
    )
    assert [v.outcome for v in verdicts] == [1.0, 0.5, 0.5, 0.5]
    assert [v.invalid for v in verdicts] == [False, True, True, False]
    assert account(verdicts)["invalid"] == 0.5
    assert "consistency" not in account(verdicts)  # a score has no order


def test_answers_of_one_text_tie_whatever_is_scored_beside_them():
    """A reward model's last digits depend on its micro-batch: on some processors, on where a row lies in memory."""

    def rounding(groups):
        return [Scores([len(g.completions[0].text) + 1e-6 * len(groups)], {}) for g in groups]

    judge = RewardJudge(rounding, name="rounding")
    assert [v.outcome for v in judge([pair("q", "xx", "xx"), pair("q", "x", "xx"), pair("r", "y", "y")])] == [0.5, 0.0, 0.5]
    assert [v.score_b for v in judge([pair("q", "x", "x"), pair("q", "x", "xx")])] == pytest.approx([1.0, 2.0], abs=1e-5)
    cut = Comparison(prompt=Prompt(content="q"), a=Completion(content="x"), b=Completion(content="x", finish=Finish.LENGTH))
    assert judge([cut, pair("q", "x", "xx"), pair("q", "x", "x")])[0].outcome == 1.0, "a cut answer is another one"
    found = self_test(judge, answers())
    assert (found["identical"], found["passed"]) == (0.5, True)


def test_answers_must_be_to_the_same_prompts():
    group = lambda text: Group(prompt=Prompt(content=text), completions=(Completion(content="x"),))  # noqa: E731
    assert paired([group("a")], [group("a")])[0].prompt.text == "a"
    with pytest.raises(ValueError, match="different prompts"):
        paired([group("a")], [group("b")])


def answers(n=6):
    return [(Prompt(content=f"q{i}"), Completion(content=f"the answer to number {i} is {i * i}")) for i in range(n)]


def test_self_test_passes_a_fair_judge_and_fails_a_random_or_placebound_one():
    def right(prompt, completion):
        text = completion.text.strip()
        number = prompt.text[1:]
        return float(text == f"the answer to number {number} is {int(number) ** 2}")

    fair = self_test(RewardJudge(pointwise(right), name="right"), answers())
    assert (fair["identical"], fair["planted"], fair["passed"], fair["n"]) == (0.5, 1.0, True, 6)
    blind = self_test(RewardJudge(pointwise(lambda p, c: 0.0), name="blind"), answers())
    assert (blind["planted"], blind["passed"]) == (0.5, False)
    wrong = self_test(RewardJudge(pointwise(lambda p, c: -right(p, c)), name="wrong"), answers())
    assert wrong["planted"] == 0.0
    assert (wrong["passed"], wrong["failed"]) == (False, "it prefers an answer's shuffled words in 100%")
    numbers = itertools.count()
    moody = self_test(RewardJudge(pointwise(lambda p, c: float(next(numbers))), name="moody"), answers())
    assert (moody["passed"], moody["failed"]) == (False, "the very same text gets different scores")
    assert self_test(RewardJudge(LENGTH, name="length"), answers(1))["passed"] is None


def test_a_judge_of_length_passes_its_self_test_and_is_called_a_judge_of_form():
    """Shuffled words are as long as before, and of two answers one is longer as often as the other."""
    rows = [(Prompt(content=f"q{i}"), Completion(content=" ".join(f"{j:03}" for j in range(i + 6)))) for i in range(6)]
    found = self_test(RewardJudge(LENGTH, name="length"), rows)
    assert (found["identical"], found["passed"]) == (0.5, True)
    assert found["planted"] == (6 * 0.5 + 1) / 12  # six ties, and five answers shorter than the next, one longer
    assert "a judge of form" in found["note"]


def test_accounts_add_up():
    judge = RewardJudge(LENGTH, name="length")
    pairs = [pair("q", "xx", "y"), pair("q", "?", "y"), pair("q", "x", "yy"), pair("q", "x", "z")]
    whole, parts = account(judge(pairs)), [account(judge(pairs[:1])), account(judge(pairs[1:]))]
    assert merged(parts) == pytest.approx(whole)
    assert by_length(judge(pairs), pairs) == {
        "mean_chars": 1.25, "mean_chars_baseline": 1.25, "longer": 0.25, "win_rate_longer": 1.0,
        "win_rate_not_longer": pytest.approx(1 / 3),
    }  # fmt: skip


def test_rate_limit_spaces_calls():
    now, slept = [100.0], []
    limit = RateLimit(30, sleep=slept.append, clock=lambda: now[0])
    for _ in range(3):
        limit.wait()
    assert slept == [2.0, 4.0]
    now[0] = 200.0
    limit.wait()
    assert len(slept) == 2


@pytest.fixture(scope="module")
def model():
    from evenhand.data.template import Renderer
    from evenhand.models.load import new_policy
    from evenhand.worlds.tokenizer import word_tokenizer

    words = "[CONTEXT] [RESPONSE A] B red green blue A B Preferred : q \n"
    tokenizer = word_tokenizer([words, " " + words])
    shape = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1, "max_position_embeddings": 512, "initializer_range": 0.3}  # fmt: skip
    return new_policy(shape, tokenizer, seed=0, device="cpu"), Renderer(tokenizer)


def test_a_preference_models_verdict_is_the_letters_softmax_in_both_orders(model):
    import torch

    policy, renderer = model
    judge = build(PreferenceModel(kind="preference_model", path="here"), opened=model)
    (verdict,) = judge([pair("red", "green", "blue")])
    expected = []
    for first, second in (("green", "blue"), ("blue", "green")):
        asked = templates.get("preference_model").messages(Prompt(content="red"), answer_a=first, answer_b=second)
        prompt = renderer.prompt_ids(Prompt(content=asked))  # a user's turn, ending where the assistant's begins
        with torch.no_grad():
            logits = policy.hf(torch.tensor([prompt])).logits[0, -1].double()
        p = logits.softmax(0)
        ids = {w: renderer.tokenizer.encode(f" {w}", add_special_tokens=False) for w in "AB"}  # without the blank: unknown
        assert all(len(i) == 1 for i in ids.values())
        mass = {w: float(p[i[0]]) for w, i in ids.items()}
        expected.append(mass["A"] / (mass["A"] + mass["B"]))
    assert verdict.orders[0].outcome == pytest.approx(expected[0], abs=1e-5)
    assert verdict.orders[1].outcome == pytest.approx(1 - expected[1], abs=1e-5)
    assert verdict.outcome == pytest.approx((expected[0] + 1 - expected[1]) / 2, abs=1e-5)
    assert verdict.orders[0].status is Status.LOGPROBS
    (swapped,) = judge([pair("red", "blue", "green")])
    assert swapped.outcome == pytest.approx(1 - verdict.outcome)


def test_a_random_model_on_this_machine_gives_invalid_verdicts_that_are_counted(model):
    policy, renderer = model
    judge = LLMJudge(LocalChat(policy, renderer, name="random"), templates.get("helpfulness"), max_tokens=4, attempts=2)
    verdicts = judge([pair("red", "green", f"blue {i}") for i in range(3)])
    assert len(verdicts) == 3
    assert all(0 <= v.outcome <= 1 for v in verdicts)
    assert judge.chat.calls >= 6
    before = judge.chat.calls
    assert judge([pair("red", "green", "blue 0")])[0] == verdicts[0]
    assert judge.chat.calls == before


def test_a_judge_on_this_machine_samples_with_the_engine_that_is_named(model, monkeypatch):
    from evenhand.engines.registry import ENGINES, engine
    from evenhand.engines.scripted import ScriptedEngine

    monkeypatch.setattr(ENGINES, "entries", dict(ENGINES.entries))
    engine("scripted")(lambda opened, says: ScriptedEngine(lambda prompt, index: says))
    policy, renderer = model
    chat = LocalChat(policy, renderer, name="small", engine={"kind": "scripted", "says": "blue"})
    (_, reply), = chat.complete([Request(messages=(Message("user", "red"),), max_tokens=4)])  # fmt: skip
    assert reply.text == "blue"
    plain = LocalChat(policy, renderer, name="small").identity
    assert chat.identity == {**plain, "engine": {"kind": "scripted", "says": "blue"}}, "its replies are no other engine's"


def test_a_local_judge_says_what_it_took_and_new_weights_are_asked_anew(model, tmp_path):
    policy, renderer = model
    pairs = [pair("red", "green", "blue"), pair("red", "green", "red")]

    def judged(weights):
        chat = LocalChat(policy, renderer, name="same/path", weights=weights)
        cache = Cache(tmp_path / "cache.jsonl")
        made = LLMJudge(chat, templates.get("preference_model"), form="logprobs", attempts=1, cache=cache)
        made(pairs)
        return made.chat

    first = judged("w1").spent()
    assert (first["asked"], first["answers"], first["device"]) == (4, 4, "cpu")
    assert first["seconds"] > 0
    assert first["prompt_tokens"] > 4 * 10
    again = judged("w1")
    assert again.calls == 0
    assert again.spent()["seconds"] == pytest.approx(first["seconds"])  # what the answers took when they were made
    assert judged("w2").calls == 4


@pytest.mark.parametrize("form", ["text", "logprobs"])
def test_an_answer_too_long_for_a_model_on_this_machine_costs_that_pair(model, form):
    judge = LLMJudge(LocalChat(*model, name="small"), templates.get("preference_model"), form=form, attempts=1)
    verdicts = judge([pair("red", "green", "blue"), pair("red", "green " * 600, "blue"), pair("red", "blue", "green")])
    assert [any(o.why.startswith("too long for the judge") for o in v.orders) for v in verdicts] == [False, True, False]
    assert verdicts[1].invalid
    assert len(judge.chat.cache) == 2  # the first pair's questions, which are the last one's too
