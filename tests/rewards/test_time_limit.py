"""A reward that does not answer is named while it is waited for, and ends its arm at its limit."""

from __future__ import annotations

import logging
import math
import signal
import threading

import pytest

from evenhand.errors import UserError
from evenhand.rewards import get
from evenhand.rewards.time_limit import waiting_for
from evenhand.train.rollouts.metrics import checked
from evenhand.types import Completion, Group, Prompt, Scores

GROUP = Group(prompt=Prompt(content="q", id="p7"), completions=(Completion(content="a"), Completion(content="b")))


def test_a_function_that_never_returns_ends_with_its_name(tmp_path):
    (tmp_path / "slow.py").write_text("import time\ndef f(prompt, completion):\n    time.sleep(3600)\n")
    reward = get({"kind": "function", "path": "slow.py:f", "seconds": 0.1}, base=tmp_path)
    with pytest.raises(UserError, match=r"reward slow\.py:f, prompt p7: no score after 0\.1 seconds") as error:
        reward([GROUP])
    assert "seconds" in error.value.fix


def test_a_function_that_catches_everything_is_interrupted_again(tmp_path):
    (tmp_path / "deaf.py").write_text(
        "import time\ndef f(prompt, completion):\n    for _ in range(2):\n        try:\n            time.sleep(3600)\n"
        "        except Exception:\n            pass\n    time.sleep(3600)\n"
    )
    with pytest.raises(UserError, match="no score after"):
        get({"kind": "function", "path": "deaf.py:f", "seconds": 0.1}, base=tmp_path)([GROUP])


def test_a_function_in_time_scores_as_ever(tmp_path):
    (tmp_path / "quick.py").write_text("def f(prompt, completion):\n    return len(completion.text)\n")
    assert get({"kind": "function", "path": "quick.py:f"}, base=tmp_path)([GROUP, GROUP]) == [Scores((1.0, 1.0))] * 2


def test_what_is_waited_for_is_said(caplog):
    caplog.set_level(logging.WARNING)
    said = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record):
            said.set()

    log = logging.getLogger("evenhand.rewards.time_limit")
    listener = Listener()
    log.addHandler(listener)
    try:
        with waiting_for("reward r, prompt p", 3600.0, say_every=0.01):
            assert said.wait(60)
    finally:
        log.removeHandler(listener)
    assert "waiting for reward r, prompt p: 0 of 3600 seconds" in caplog.text


def test_an_alarm_of_somebody_else_goes_on():
    def theirs(number, frame): ...

    before = signal.signal(signal.SIGALRM, theirs)
    outer = signal.setitimer(signal.ITIMER_REAL, 1000.0)
    try:
        with waiting_for("r", 5.0):
            pass
        assert signal.getsignal(signal.SIGALRM) is theirs
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, *outer)
        signal.signal(signal.SIGALRM, before)


def test_a_step_without_any_score_ends_the_arm_and_one_with_some_does_not():
    nothing, some = Scores((math.nan, math.nan)), Scores((math.nan, 1.0))
    with pytest.raises(UserError, match="not one of 4 answers could be scored"):
        checked([GROUP, GROUP], [nothing, nothing])
    assert checked([GROUP, GROUP], [nothing, some]) == [nothing, some]
    assert checked([], []) == []


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, "soon", None])
def test_a_limit_that_is_none_is_refused_before_anything_is_scored(tmp_path, seconds):
    (tmp_path / "quick.py").write_text("def f(prompt, completion):\n    return 1\n")
    with pytest.raises(UserError) as error:
        get({"kind": "function", "path": "quick.py:f", "seconds": seconds}, base=tmp_path)
    assert error.value.where == "reward.seconds"
