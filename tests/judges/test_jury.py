"""Juries, repeated judging, and judges that are none."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from evenhand.errors import UserError
from evenhand.judges import LLMJudge, Order, RewardJudge, Status, Verdict, account, self_test
from evenhand.judges import template as templates
from evenhand.judges.agreement import jury_agreement, own_noise
from evenhand.judges.cache import Cache
from evenhand.judges.config import LLM, problem
from evenhand.judges.endpoint import Endpoint
from evenhand.judges.jury import Jury, Repeated, combined
from evenhand.judges.selftest import refuse_broken
from evenhand.rewards.pointwise import pointwise
from evenhand.synthesis.config import Revise
from evenhand.types import Completion, Prompt
from tests.judges.fake_server import FakeServer, longer, pair

PAIRS = [pair(f"question {i}", "x" * (i + 2), "yyyy") for i in range(6)]  # 2, 3, 4, ... letters against 4
LENGTH = RewardJudge(pointwise(lambda p, c: float(len(c.text)), name="length"), name="length")


def llm(answer, *, temperature=0.0, cache=None):
    endpoint = Endpoint(url="http://judge/v1", model="m", transport=FakeServer(answer).transport, sleep=lambda _: None)
    return LLMJudge(endpoint, templates.get("helpfulness"), temperature=temperature, cache=cache)


def said(*outcomes):
    """Verdicts of judges a, b, ...: None is one that could not be read."""
    orders = [
        Order(a_first=True, outcome=0.5 if x is None else x, status=Status.READ if x is not None else Status.INVALID)
        for x in outcomes
    ]
    return {name: Verdict(outcome=o.outcome, orders=(o,)) for name, o in zip("abcde", orders, strict=False)}


@pytest.mark.parametrize(
    ("outcomes", "majority", "mean"),
    [
        ((1.0, 1.0, 0.0), 1.0, 2 / 3), ((1.0, 0.0), 0.5, 0.5), ((0.5, 0.5, 0.0), 0.0, 1 / 3), ((0.9, 0.6, 0.0), 1.0, 0.5),
        ((1.0, None, 0.0, 0.0), 0.0, 1 / 3), ((None, 1.0), 1.0, 1.0), ((0.5, 0.5), 0.5, 0.5),
    ],
)  # fmt: skip
def test_a_pair_is_settled_by_majority_or_mean_of_those_who_have_a_verdict(outcomes, majority, mean):
    assert combined(said(*outcomes), "majority").outcome == majority
    assert combined(said(*outcomes), "mean").outcome == pytest.approx(mean)
    assert not combined(said(*outcomes), "mean").invalid


def test_a_pair_on_which_all_abstain_is_a_half_and_marked():
    verdict = combined(said(None, None), "majority")
    assert (verdict.outcome, verdict.invalid) == (0.5, True)
    assert all(math.isnan(x) for _, x in verdict.votes)
    assert verdict.to_json()["votes"] == {"a": None, "b": None}


def test_a_jury_of_a_program_and_two_language_models():
    jury = Jury({"program": LENGTH, "model": llm(longer), "first": llm(lambda *_: "Preferred: A")}, by="majority")
    verdicts = jury(PAIRS)
    assert [v.outcome for v in verdicts] == [0.0, 0.0, 0.5, 1.0, 1.0, 1.0]
    assert dict(verdicts[5].votes) == {"program": 1.0, "model": 1.0, "first": 0.5}
    assert [o.a_first for o in verdicts[5].orders] == [True, False]
    found = account(verdicts)
    assert (found["n"], found["invalid"], found["consistency"], found["attempts"]) == (6, 0.0, 1.0, 24)
    told = jury_agreement([v.to_json()["votes"] for v in verdicts])["jury"]
    assert told["members"]["first"] == {"win_rate": 0.5, "abstained": 0.0}
    kappa = {(row["a"], row["b"]): row["value"] for row in told["cohen"]}
    assert kappa["program", "model"] == 1.0
    assert kappa["program", "first"] == 0.0  # a judge of places ties always, which agrees as far as chance does


def test_what_is_settled_by_rule_is_nobodys_vote():
    (verdict,) = Jury({"a": llm(longer), "b": llm(longer)})([pair("q", "same", "same")])
    assert (verdict.outcome, verdict.votes, verdict.asked) == (0.5, (), False)


def test_repeated_judging_asks_anew_each_time_and_knows_its_own_noise(tmp_path):
    asked = Counter()

    def moody(first, second, body):
        """Twice for the longer answer, then once for the shorter."""
        asked[first, second] += 1
        return f"Preferred: {'A' if (len(first) > len(second)) == (asked[first, second] < 3) else 'B'}"

    cache = Cache(tmp_path / "cache.jsonl")
    judge = Repeated(llm(moody, temperature=0.7, cache=cache), 3)
    verdicts = judge(PAIRS)
    assert len(cache) == 3 * 2 * len(PAIRS)
    assert [set(dict(v.votes)) for v in verdicts] == [{"1", "2", "3"}] * 6
    for v in verdicts:
        assert v.outcome == pytest.approx(sum(dict(v.votes).values()) / 3)
    assert [v.outcome for v in judge(PAIRS)] == [v.outcome for v in verdicts]  # from the cache
    noise = own_noise([v.to_json()["votes"] for v in verdicts])
    assert noise["repeats"] == 3
    assert noise["repeat_sd"] ** 2 == pytest.approx((5 * (1 / 3) + 0) / 6)  # 1, 1, 0 has variance 1/3; equally long ones tie
    assert judge.revision.endswith("-3-times")


def test_repeats_of_a_judge_that_cannot_vary_are_refused():
    fault = problem(LLM(kind="llm", model="m", repeats=3))
    assert "always says the same" in fault.what
    assert problem(LLM(kind="llm", model="m", repeats=3, temperature=0.7, price={"input": 1, "output": 1})) is None


def answers(n=8):
    return [(Prompt(content=f"q{i}"), Completion(content=f"some words of answer {i} {'x' * i}")) for i in range(n)]


def test_every_judge_of_a_jury_is_tested():
    found = self_test(Jury({"good": LENGTH, "places": llm(lambda *_: "Preferred: B")}), answers())
    assert (found["passed"], found["broken"]) == (False, True)
    assert found["failed"].startswith("places: it prefers the answer shown second in both orders, every time")
    assert "good" in found["members"]


class Own:
    """A judge of a user's: one order, any rule."""

    name = revision = "own"

    def __init__(self, rule):
        self.rule = rule

    def __call__(self, comparisons, progress=None):
        rows = [Order(a_first=True, outcome=self.rule(c), status=Status.READ) for c in comparisons]
        return [Verdict(outcome=o.outcome, orders=(o,)) for o in rows]


def test_a_users_judge_of_places_or_chance_is_broken_one_of_length_is_not():
    draw = random.Random(0)
    for rule in (lambda c: 1.0, lambda c: float(draw.random() < 0.5)):
        found = self_test(Own(rule), answers(20))
        assert found["broken"], found
        assert "contradicts itself" in found["failed"]
    longest = self_test(Own(lambda c: 0.5 + 0.5 * ((len(c.a.text) > len(c.b.text)) - (len(c.a.text) < len(c.b.text)))), answers())
    assert "broken" not in longest


def test_a_program_that_scores_nothing_is_refused_before_any_number():
    nothing = RewardJudge(pointwise(lambda p, c: math.nan, name="nan"), name="nan")
    with pytest.raises(UserError, match="not one of its 6 verdicts could be read"):
        refuse_broken(nothing(PAIRS), "nan")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"attempts": 0}, "judge.attempts"),
        ({"concurrency": 0}, "judge.concurrency"),
        ({"requests_per_minute": 0}, "judge.requests_per_minute"),
        ({"timeout": math.nan}, "judge.timeout"),
        ({"max_tokens": 0}, "judge.max_tokens"),
        ({"temperature": -1.0}, "judge.temperature"),
        ({"max_cost": math.nan, "price": {"input": 1.0, "output": 1.0}}, "judge.max_cost"),
        ({"price": {"input": math.nan, "output": 1.0}}, "judge.price.input"),
        ({"price": {"input": -1.0, "output": 1.0}}, "judge.price.input"),
        ({"self_test": -1}, "judge.self_test"),
    ],
)
def test_settings_that_no_judge_can_have_are_said_by_their_key(change, where):
    fault = problem(LLM(kind="llm", model="m", **change))
    assert fault is not None
    assert fault.where == where
    assert [f.where for f in Revise(by=LLM(kind="llm", model="m", **change)).problems()] == ["revise.by"]
