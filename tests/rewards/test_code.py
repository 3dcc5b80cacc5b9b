"""Programs are judged by their tests, and cannot hang, hoard, flee, reach out or say that they have passed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evenhand.errors import UserError
from evenhand.rewards import isolation
from evenhand.rewards.code import Limits, program_in, run_program, unit_tests
from evenhand.types import Completion, Group, Prompt

LIMITS = Limits(seconds=120.0, memory=256)
"""For programs that end by themselves, on a busy machine too."""
ADDS = "assert add(1, 2) == 3\nassert 1 == 2"
"""Nothing may pass these."""
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's limits are Linux's")


@pytest.fixture(params=["bwrap", "namespaces", "none"])
def mode(request):
    """Every way of shutting a program in that this machine has."""
    if request.param != "none" and not isolation.works(request.param):
        pytest.skip(f"this machine has no {request.param}")
    return request.param


@pytest.fixture
def shut_in(mode):
    if mode == "none":
        pytest.skip("not promised without isolation")
    return mode


def run(program, tests="", mode="none", limits=LIMITS):
    return run_program(program, tests, limits, mode)


def test_a_right_program_passes_and_a_wrong_one_does_not(mode, monkeypatch):
    monkeypatch.setattr(isolation, "_found", lambda: None if mode == "none" else mode)
    prompt = Prompt(content="Add.", meta={"tests": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]})
    texts = (
        "Sure:\n```python\ndef add(a, b):\n    return a + b\n```",
        "def add(a, b): return a + b",
        "```\ndef add(a, b):\n    return a - b\n```",
        "I cannot.",
    )
    group = Group(prompt=prompt, completions=tuple(Completion(content=t) for t in texts))
    assert unit_tests(limits=LIMITS, isolation="none")([group])[0].values == (1.0, 1.0, 0.0, 0.0)


def test_the_last_block_counts():
    assert program_in("```python\na\n```\nbetter:\n```py\nb\n```") == "b\n"


# --- what tests may be -----------------------------------------------------------------------------------------------

RIGHT = {
    "plain values": ("def f(x): return [x, (x, None), {x: {1, 2}}, 1.5, b'b', 10**40]",
                     "assert f('a') == ['a', ('a', None), {'a': {1, 2}}, 1.5, b'b', 10**40]"),
    "a check of a candidate": ("def f(x): return x + 1", "def check(candidate):\n    assert candidate(1) == 2\ncheck(f)"),
    "an error that is expected": ("def f(x): raise ValueError('no')",
                                  "try:\n    f(1)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'no'"),
    "an error of its own": ("class Base(Exception): pass\nclass Bad(Base): pass\ndef f(): raise Bad('x')",
                            "try:\n    f()\n    assert False\nexcept Base:\n    pass"),
    "objects": ("class P:\n    def __init__(self, x): self.x = x\n    def __add__(self, o): return P(self.x + o.x)\n"
                "    def __eq__(self, o): return self.x == o.x\n    def __len__(self): return 7",
                "p = P(1) + P(2)\nassert p.x == 3 and p == P(3) and len(p) == 7 and isinstance(p, P)\np.x = 9\nassert p.x == 9"),
    "changes in place": ("def f(xs): xs.sort()", "xs = [3, 1, 2]\nassert f(xs) is None\nassert xs == [1, 2, 3]"),
    "generators": ("def f(n):\n    for i in range(n): yield i * i", "assert list(f(4)) == [0, 1, 4, 9]\nassert sum(f(3)) == 5"),
    "functions of the tests": ("def f(g, x): return g(g(x))", "assert f(lambda x: x * 2, 3) == 12"),
    "what it prints": ("def f(): print('hello')",
                       "import io, contextlib\nb = io.StringIO()\nwith contextlib.redirect_stdout(b):\n    f()\n"
                       "assert b.getvalue() == 'hello\\n'"),
    "standard containers": ("from collections import *\ndef f(): return Counter('aab')\nP = namedtuple('P', 'x y')",
                            "assert f() == {'a': 2, 'b': 1}\nassert P(1, 2) == (1, 2) and P(1, 2).y == 2"),
    "its own imports": ("import math\ndef f(): return 2.0", "assert math.isclose(f(), 2.0)"),
    "constants": ("N = 3\ndef f(): global N; N += 1", "f()\nassert N == 4"),
    "ordinary imports": ("import math, re, collections, itertools, heapq, functools, typing, json, random, threading, asyncio",
                         "pass"),
    "threads": ("import threading\nout = []\nt = threading.Thread(target=out.append, args=(1,)); t.start(); t.join()",
                "assert out == [1]"),
    "files of its own": ("open('mine', 'w').write('x')\ndef f(): return open('mine').read()", "assert f() == 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_tests_may_ask_of_a_program(name, mode):
    outcome = run(*RIGHT[name], mode)
    assert outcome.passed, outcome.detail


@pytest.mark.parametrize("name", RIGHT)
def test_the_same_tests_fail_when_something_else_is_wrong(name):
    program, tests = RIGHT[name]
    assert not run(program, f"{tests}\nassert 1 == 2").passed


# --- what a program may not do ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "detail"),
    [
        ("import socket; socket.socket()", "PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
        ("import os; os.fork()", "PermissionError"),
        ("import posix; posix.fork()", "PermissionError"),
        ("import sys; sys.modules.pop('subprocess', None); import subprocess; subprocess.Popen('true')", "PermissionError"),
        ("import os, importlib; importlib.reload(os); os.fork()", "PermissionError"),
        ("import os; os.execv('/bin/true', ['true'])", "PermissionError"),
        ("import os; os.kill(os.getppid() or 1, 9)", "PermissionError"),
        ("x = bytearray(10**9)", "MemoryError"),
        ("open('big', 'w').write('x' * 10**7)", "OSError"),
        ("assert False", "AssertionError"),
        ("import os; assert os.system('true') == 0", "AssertionError"),
        ("def f(:", "SyntaxError"),
    ],
)
@linux
def test_what_a_program_may_not_do(program, detail, mode):
    outcome = run(program, "pass", mode)
    assert not outcome.passed
    assert detail in outcome.detail


FORGERIES = {
    "the guard's frame": "import sys, os\ni = 0\nwhile True:\n    try: f = sys._getframe(i)\n    except ValueError: break\n"
    "    print(f.f_locals); i += 1\nos._exit(0)",
    "leaving early": "import os; os._exit(0)",
    "exit": "import sys; sys.exit(0)",
    "raise SystemExit": "raise SystemExit",
    "equal to all": "class E:\n    def __eq__(s, o): return True\n    __ne__ = lambda *a: False\ndef add(a, b): return E()",
    "an int equal to everything": "class E(int):\n    def __eq__(s, o): return True\ndef add(a, b): return E(0)",
    "a difference of nothing": "class E:\n    def __sub__(s, o): return 0\n    __rsub__ = __sub__\ndef add(a, b): return E()",
    "an assert that does not": "import builtins\nbuiltins.AssertionError = Warning\ndef add(a, b): return 0",
    "builtins of its own": "len = abs = sum = all = any = isinstance = lambda *a: True\ndef add(a, b): return 0",
    "the pipe of the verdict": "import os\nfor d in range(3, 64):\n    try: os.write(d, b'passed')\n    except OSError: pass\n"
    "os._exit(0)",
    "messages by hand": 'import os, json\nfor d in range(3, 64):\n    try: os.write(d, b\'["value", 3, ""]\\n\' * 50)\n'
    "    except OSError: pass\nos._exit(0)",
    "a message that is none": "import os\nfor d in range(3, 64):\n    try: os.write(d, b'[' * 100000 + b'\\n')\n"
    "    except OSError: pass\ndef add(a, b): return 3",
    "modules that are not": "import unittest.mock\nadd = unittest.mock.MagicMock()",
    "kills its caller": "import posix\nposix.kill(posix.getppid(), 9)",
}
STRICT = "assert add(1, 2) == 3\nassert abs(add(1, 2) - 3) < 1e-6\nassert add(2, 2) == 4\nassert sum([add(1, 1)]) == 2"


@pytest.mark.parametrize("name", FORGERIES)
@linux
def test_a_program_cannot_say_that_it_has_passed(name, mode):
    for tests in (ADDS, STRICT, "assert 3 == add(1, 2)"):
        outcome = run(FORGERIES[name], tests, mode)
        assert not outcome.passed
        assert outcome.detail


def processes(word):
    """Ids of the living processes whose command line holds a word."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if word in (entry / "cmdline").read_text(errors="replace"):
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended meanwhile
    return found


FLEES = {
    "a fork that keeps the pipe": "import posix, time\nif posix.fork() == 0:\n    posix.setsid(); time.sleep(10**6)",
    "a fork that closes it": "import posix, time\nif posix.fork() == 0:\n    posix.setsid()\n    for d in range(64):\n"
    "        try: posix.close(d)\n        except OSError: pass\n    time.sleep(10**6)",
    "200 forks": "import posix, time\nfor _ in range(200):\n    if posix.fork() == 0: time.sleep(10**6)",
    "a loop": "while True: pass",
    "a sleep": "import time; time.sleep(10**6)",
    "a signal that is not heard": "import signal, time\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): pass\nwhile True: pass",
}


@pytest.mark.parametrize("name", FLEES)
@linux
def test_nothing_outlives_a_run(name, mode):
    before = set(processes("sandbox/start.py"))
    assert not run(FLEES[name], ADDS, mode, Limits(seconds=1.0, memory=256)).passed  # it ends, though the sleeper would not
    mine = [p for p in set(processes("sandbox/start.py")) - before if os.getpid() in ancestors(p)]
    assert mine == []


def ancestors(process):
    """Its parents; of an orphan only the first process of the machine, which makes it nobody's here."""
    found = []
    while process > 1:
        try:
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.append(process)
    return found


@linux
def test_a_caller_that_dies_takes_its_programs_along(mode, tmp_path):
    script = (
        "from evenhand.rewards.code import Limits, run_program\n"
        "print('started', flush=True)\n"
        f"run_program('import time; time.sleep(10**6)', '', Limits(seconds=10.0**5), {mode!r})"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    caller = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
    assert caller.stdout.readline() == b"started\n"
    while len([p for p in processes(str(tmp_path)) if p != caller.pid]) < 2:
        assert caller.poll() is None
        time.sleep(0.05)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    caller.stdout.close()
    while processes(str(tmp_path)):  # a test that hangs here has found what outlives its caller
        time.sleep(0.05)


@linux
def test_what_it_prints_is_not_hoarded(mode):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    program = "import os, sys\nfor _ in range(300):\n    os.write(1, b'x' * (1 << 20)); os.write(2, b'x' * (1 << 20))"
    assert run(program, "pass", mode, LIMITS).passed
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # kilobytes


def test_every_run_has_a_folder_of_its_own(mode):
    source = "import os\nassert not os.path.exists('mine')\nopen('mine', 'w').close()"
    assert all(run(source, "pass", mode).passed for _ in range(2))


# --- what it may see -------------------------------------------------------------------------------------------------

ENVIRONMENTS = """
import os
seen = "|".join(f"{k}={v}" for k, v in os.environ.items())
for name in ["self", str(os.getppid()), *[n for n in (os.listdir("/proc") if os.path.isdir("/proc") else []) if n.isdigit()]]:
    for what in ("environ", "cmdline"):
        try: seen += open(f"/proc/{name}/{what}").read()
        except OSError: pass
def text(): return seen
"""


@linux
def test_the_callers_environment_is_not_seen(mode, monkeypatch):
    """A process of its own, so that the secret stands in its first environment, as a user's key does."""
    tests = "assert 'sk-' + 'canary' not in text(), 'seen'"
    script = (
        "from evenhand.rewards.code import Limits, run_program\n"
        f"print(run_program({ENVIRONMENTS!r}, {tests!r}, Limits(seconds=120.0), {mode!r}))"
    )
    environment = {**os.environ, "MY_API_KEY": "sk-canary"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "passed=True" in done.stdout, done.stdout


@linux
def test_shut_in_it_sees_no_file_of_others_and_writes_nowhere_else(shut_in, tmp_path):
    (tmp_path / "secret").write_text("mine")
    tmp_path.chmod(0o777)
    program = (
        "import os\n"
        f"def sees(): return [p for p in ({str(tmp_path / 'secret')!r}, '/etc/passwd', '/etc/shadow', '/root', '/home', '/tmp')\n"
        "                     if os.path.exists(p)]\n"
        "def writes():\n    done = []\n"
        f"    for folder in ('/', '/usr', '/tmp', '/box/..', {str(tmp_path)!r}, os.path.dirname(os.__file__)):\n"
        "        try:\n            open(folder + '/x', 'w').close(); done.append(folder)\n"
        "        except OSError: pass\n    return done\n"
    )
    home = [p for p in ("/root", "/home") if sys.base_prefix.startswith(p)]  # the way to the interpreter, and nothing else there
    outcome = run(program, f"assert sees() == {home}, sees()\nassert writes() == [], writes()", shut_in)
    assert outcome.passed, outcome.detail
    assert os.listdir(tmp_path) == ["secret"]


@linux
def test_shut_in_its_files_together_are_limited(shut_in):
    program = "for i in range(200): open(str(i), 'w').write('x' * 10**6)"
    assert "No space left" in run(program, "pass", shut_in).detail


@linux
def test_shut_in_it_has_no_network_and_sees_no_other_process(shut_in):
    program = (
        "import os\nnames = [x.split(':')[0].strip() for x in open('/proc/self/net/dev') if ':' in x]\n"
        "others = [n for n in os.listdir('/proc') if n.isdigit()]"
    )
    outcome = run(program, "assert names == ['lo'], names\nassert len(others) <= 2, others", shut_in)
    if "No such file" in outcome.detail:
        pytest.skip("this machine lets nobody mount /proc: then there is nothing to see")
    assert outcome.passed, outcome.detail


# --- machines that refuse --------------------------------------------------------------------------------------------


def test_a_machine_that_cannot_isolate_refuses_unless_asked(monkeypatch, caplog):
    monkeypatch.setattr(isolation, "_found", lambda: None)
    with pytest.raises(UserError, match="cannot shut a program in") as error:
        unit_tests()
    assert "isolation: none" in str(error.value)
    isolation._warn_once.cache_clear()
    unit_tests(isolation="none")
    assert "not protected: files that this user may read" in caplog.text
    with pytest.raises(UserError, match="unknown value 'maybe'"):
        unit_tests(isolation="maybe")


@linux
def test_a_machine_without_user_namespaces_is_found_out():
    """The real thing: a process without capabilities in a namespace that allows no further ones."""
    inner = (
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "
        f"{sys.executable} -c 'from evenhand.rewards.isolation import _found; print(_found())'"
    )
    done = subprocess.run(["unshare", "-Ur", "sh", "-c", inner], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot be tried here: {done.stderr.strip()[-100:]}")
    assert done.stdout.strip() == "None"


@pytest.mark.parametrize("tests", ["", "  \n", [], [""], [1], {"assert": 1}, 3])
def test_without_a_test_nothing_passes(tests, mode, monkeypatch):
    monkeypatch.setattr(isolation, "_found", lambda: None if mode == "none" else mode)
    reward = unit_tests(isolation="none")
    with pytest.raises(UserError, match="expected tests as a text or a list of texts"):
        reward([Group(prompt=Prompt(content="Add.", meta={"tests": tests}), completions=(Completion(content="x = 1"),))])
