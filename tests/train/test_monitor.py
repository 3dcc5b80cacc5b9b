"""Every rule on a stream written by hand: at which step it speaks, and that sound streams stay silent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evenhand.train.monitor import Monitor, logged, of_samples, replay
from evenhand.train.rules import RULES, table

DOCS = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"


def spoken(rows: list[dict[str, float]], **options: object) -> dict[str, int]:
    """Rule -> the step at which it spoke."""
    monitor = Monitor(**options)
    for step, row in enumerate(rows, 1):
        monitor.see(step, row)
    return {name: remark.step for name, remark in monitor.remarks.items()}


def stream(name: str, values: list[float], **constant: float) -> list[dict[str, float]]:
    return [{name: value, **constant} for value in values]


def rollouts(steps: int = 40) -> list[dict[str, float]]:
    """A sound policy gradient: reward up, KL to 6 nats at 30 tokens, entropy down by a tenth, one flat group in eight."""
    return [
        {
            "loss": 0.01 * (-1) ** i, "grad_norm": 0.2 + 0.05 * (i % 3), "reward": 0.02 * i, "kl": 6 * i / steps,
            "length": 30 + i % 4, "entropy": 0.97 - 0.1 * i / steps, "truncated": 0.05, "flat": 0.125,
            "ratio": 1 + 0.01 * (-1) ** i, "watched/clipped": 0.1, "watched/duplicates": 0.1, "watched/unscored": 0.0,
        }
        for i in range(steps)
    ]  # fmt: skip


def pairs(steps: int = 60) -> list[dict[str, float]]:
    """A sound DPO run: the loss leaves ln 2, both log-probs fall, the rejected one faster."""
    return [
        {
            "loss": 0.6931 - 0.002 * i, "grad_norm": 0.75 + 0.05 * (i % 5), "accuracy": 0.5 + 0.003 * i, "margin": 0.05 * i,
            "chosen_logp": -26.0 - 0.06 * i, "rejected_logp": -26.0 - 0.1 * i,
        }
        for i in range(steps)
    ]  # fmt: skip


@pytest.mark.parametrize("rows", [rollouts(), pairs(), stream("nll", [3 - 0.02 * i for i in range(60)])])
def test_a_sound_stream_is_silent(rows):
    assert spoken(rows) == {}


ILL = {
    "kl": (stream("kl", [10, 20, 40, 80, 80]), 5),  # mean of 3 > 50: (40 + 80 + 80) / 3 = 67, before it 47
    "kl_per_token": (stream("kl", [0, 3, 6, 12, 15], length=20.0), 5),  # (6 + 12 + 15) / 60 = 0.55, before it 0.35
    "entropy_below": (stream("entropy", [1.0, 0.3, 0.2, 0.15, 0.06]), 5),  # 0.41 / 3 = 0.137 < 0.15, before it 0.217
    "truncated": (stream("truncated", [0.1, 0.4, 0.5, 0.7]), 4),  # 1.6 / 3 > 0.5, before it exactly 1 / 3
    "flat": (stream("flat", [0.0] + 12 * [1.0]), 11),  # ten in a row
    "unscored": (stream("watched/unscored", [0.0, 0.6, 0.6, 0.6]), 4),
    "duplicates": (stream("watched/duplicates", [0.5, 0.7, 0.8, 0.9]), 4),  # 0.8 > 0.75, before it 0.667
    "length_change": (stream("length", [30, 30, 30, 60, 60, 60, 60, 70]), 8),  # 62 > 60, before it 54
    "chosen_fall": (stream("chosen_logp", 10 * [-20.0] + 10 * [-31.0]), 20),  # -30 is half as much again, and is not beyond
    "clipped": (stream("watched/clipped", [0.2, 0.3, 0.3, 0.3, 0.3, 0.4]), 6),  # 0.32, before it 0.28
    "ratio_off": (stream("ratio", [1.0, 1.0, 0.8, 0.8, 0.8], length=20.0), 5),  # 0.88
    "grad_spike": (stream("grad_norm", 12 * [0.5] + [9.0, 11.0]), 14),  # 18 times is not enough, 22 is
    "stuck": (stream("loss", 25 * [0.6931472], accuracy=0.5), 20),
    "no_gradient": (stream("grad_norm", 5 * [0.1] + 10 * [0.0]), 15),
}


@pytest.mark.parametrize("name", sorted(set(RULES) - {"distinct_below"}))
def test_a_rule_speaks_at_its_step(name):
    rows, step = ILL[name]
    assert spoken(rows)[name] == step


def test_answers_that_repeat_themselves():
    samples = [{"step": 0, "completion": "one two three four five"}, {"step": 0, "completion": "a b c d e"}]
    samples += [{"step": 3, "completion": "no no no no no no"}, {"step": 3, "completion": "no no no no no"}]
    found = replay([{"step": s, "loss": 1.0 / s} for s in (1, 2, 3, 4)], samples)
    assert [(r.rule, r.step, r.value) for r in found] == [("distinct_below", 3, pytest.approx(1 / 9))]
    assert of_samples(["one", ""]) == {}, "no two words, no share"


def test_shorter_answers_count_like_longer_ones():
    assert spoken(stream("length", 3 * [40] + 6 * [15])) == {"length_change": 8}


def test_a_policy_gradient_at_zero_loss_is_not_stuck():
    """Its loss is zero at every on-policy step by construction."""
    assert spoken(stream("loss", 60 * [0.0], reward=1.0)) == {}


def test_given_answers_have_no_sampler_to_disagree_with():
    assert spoken(stream("watched/ratio", 20 * [0.4])) == {}
    assert spoken(stream("watched/ratio", 20 * [0.4], length=12.0)) == {"ratio_off": 5}


def test_a_rule_that_means_nothing_here_is_silent_but_can_still_be_a_limit():
    rows = stream("flat", 12 * [1.0])
    assert spoken(rows, silent=frozenset({"flat"})) == {}
    monitor = Monitor(silent=frozenset({"flat"}), stop_when={"flat": 0.9})
    for step, row in enumerate(rows, 1):
        monitor.see(step, row)
    assert monitor.stop.step == 10


def test_a_rule_speaks_once_and_says_what_to_do():
    monitor = Monitor()
    said = [r for step in range(1, 20) for r in monitor.see(step, {"truncated": 0.9})]
    assert len(said) == 1
    assert str(said[0]).startswith("step 3: 0.9 of the answers are cut at the token limit (limit 0.5): ")
    assert "raise `lengths.completion`" in str(said[0])


def test_a_limit_ends_the_run_at_its_step_and_stays():
    monitor = Monitor(stop_when={"kl": 5.0})
    ends = []
    for step, value in enumerate([1, 2, 4, 8, 8, 0, 0, 0], 1):
        monitor.see(step, {"kl": float(value)})
        ends.append(monitor.stop and monitor.stop.step)
    assert ends == [None, None, None, None, 5, 5, 5, 5]  # (4 + 8 + 8) / 3 = 6.7 > 5; (2 + 4 + 8) / 3 = 4.7
    assert monitor.remarks == {}, "5 nats are the user's limit, not the rule's"


@pytest.mark.parametrize("cut", [1, 4, 11, 13])
def test_a_monitor_goes_on_from_its_state_as_json(cut):
    """The same remarks at the same steps, and none twice."""
    rows = [{**a, **b} for a, b in zip(ILL["grad_spike"][0], stream("truncated", 14 * [0.7]), strict=True)]
    first, second = Monitor(), Monitor()
    before = [r for step, row in enumerate(rows[:cut], 1) for r in first.see(step, row)]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    after = [r for step, row in enumerate(rows[cut:], cut + 1) for r in second.see(step, row)]
    assert [(r.rule, r.step) for r in before + after] == [("truncated", 3), ("grad_spike", 14)]


def test_what_is_kept_does_not_grow_with_the_run():
    monitor = Monitor()
    for step in range(1, 2000):
        monitor.see(step, {"loss": 1.0 / step})
    assert len(json.dumps(monitor.state_dict())) < 3000


def test_what_is_only_watched_is_not_logged():
    assert logged({"step": 1, "watched/ratio": 1.0, "ratio": 1.0}) == {"step": 1, "ratio": 1.0}


def test_the_page_lists_every_rule_as_it_is():
    assert table() in DOCS.read_text(encoding="utf-8")
