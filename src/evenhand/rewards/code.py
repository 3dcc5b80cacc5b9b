"""Programs judged by their tests, in a cage of their own. Off unless asked for by name: it runs a model's code."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from evenhand.errors import UserError
from evenhand.rewards.isolation import Isolation, Mode, command, mode_for, unused_user
from evenhand.rewards.pointwise import Pointwise, meta_field, pointwise
from evenhand.types import Completion, Prompt

FENCE = re.compile(r"```(?:python|py)?\s*\n(.*?)```", re.DOTALL)
STARTUP = 60.0
"""Seconds that the two processes may take to shut themselves in; the limit on a program begins behind it."""
READY = b"ready\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program may use: wall and processor seconds, memory in MiB, bytes per file and of all files together."""

    seconds: float = 5.0
    memory: int = 512
    file_bytes: int = 1 << 20
    total_bytes: int = 16 << 20


@dataclass(frozen=True, slots=True)
class ProgramOutcome:
    """How a program ended. `detail` is what failed, or "timeout"."""

    passed: bool
    detail: str


def unit_tests(*, field: str = "tests", limits: Limits | None = None, isolation: Isolation = "auto") -> Pointwise:
    """1 if the program in the answer holds the tests in `meta[field]` (a text, or a list of assertions), else 0.

    The program is the last fenced block of the answer, or all of it. **This runs code that a model wrote.** The program and its
    tests run in two processes, each shut in by bubblewrap or by the kernel's namespaces: no network, no other process, no file
    of this machine but the standard library, limits on time, memory, files and processes. Tests reach the program by messages
    and compare plain values on their own side, so that a program cannot say that it has passed. `isolation` none runs without
    namespaces where the machine refuses them; docs/security.md says what holds then. UserError where it cannot be had.
    """
    if sys.platform == "win32":
        raise UserError("unit tests need resource limits, which Windows lacks", where="reward code", fix="use Linux or macOS")
    limits, mode = limits or Limits(), mode_for(isolation)

    def score(prompt: Prompt, completion: Completion) -> float:
        tests = meta_field(prompt, field, "code")
        lines = [tests] if isinstance(tests, str) else tests
        if not isinstance(lines, list | tuple) or not all(isinstance(line, str) for line in lines) or not "".join(lines).strip():
            what = f"expected tests as a text or a list of texts, found {tests!r:.60}"
            raise UserError(what, where=f"reward code, prompt {prompt.id}", why="without a test every program would pass",
                            fix="correct the data, or leave such rows out")  # fmt: skip
        text = "\n".join(lines)
        return float(run_program(program_in(completion.text), text, limits, mode).passed)

    return pointwise(score, name="code")


def program_in(text: str) -> str:
    """The last fenced block, or the whole text.

    >>> program_in("Here:\\n```python\\nx = 1\\n```\\nDone.")
    'x = 1\\n'
    """
    blocks = FENCE.findall(text)
    return blocks[-1] if blocks else text


def run_program(program: str, tests: str, limits: Limits, mode: Mode) -> ProgramOutcome:
    """Run a program and its tests under `limits`; it passes if the tests run to their end without an error.

    The verdict comes over a pipe that only the process of the tests has. When this returns, all that was started is dead.
    """
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    told = {
        "mode": mode, "user": unused_user(), "seconds": limits.seconds, "memory": limits.memory, "file_bytes": limits.file_bytes,
        "total_bytes": limits.total_bytes,
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        folders = [
            stack.enter_context(tempfile.TemporaryDirectory(prefix="evenhand-code-", ignore_cleanup_errors=True)) for _ in "pt"
        ]
        if mode == "none":
            stack.enter_context(_unreadable())
        try:
            started = stack.enter_context(_started(told | {"role": "program", "folder": folders[0], "channel": theirs.fileno()}))
            about = {"role": "tests", "folder": folders[1], "channel": ours.fileno(), "verdict": writer}
            sources = json.dumps({"program": program, "tests": tests}).encode("utf-8", "replace")
            tested = stack.enter_context(_started(told | about, sources))
        finally:
            for end in (ours, theirs):
                end.close()
            os.close(writer)
        said = _verdict(reader, limits.seconds)
        ended = started.poll()
    if said is None:
        return ProgramOutcome(False, "timeout")
    if not said.startswith(READY):
        raise UserError(
            f"the tests could not be started: status {tested.returncode} and {started.returncode}", where="reward code",
            fix="`isolation: none` runs without isolation; see docs/security.md",
        )  # fmt: skip
    text = said.removeprefix(READY).decode("utf-8", "replace")
    over = f" (killed by signal {ended - 128 if ended > 128 else -ended}: over a limit)" if ended and not 0 < ended <= 128 else ""
    return ProgramOutcome(text == "passed", "" if text == "passed" else (text or "the tests ended") + over)


@contextlib.contextmanager
def _started(told: dict[str, object], sources: bytes = b"") -> Iterator[subprocess.Popen]:
    """One side, in a session of its own; killed and waited for at the end."""
    passed = [int(str(told[name])) for name in ("channel", "verdict") if name in told]
    process = subprocess.Popen(
        command(told), env={"PATH": "/usr/bin:/bin"}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, pass_fds=passed,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as given:
            given.write(sources)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def _verdict(reader: int, seconds: float) -> bytes | None:
    """All that the tests' process says until it ends; None when it takes too long."""
    said, end = b"", time.monotonic() + STARTUP
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while True:
            if not select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
                return None if said else b""
            part = pipe.read(4096)
            if not part:
                return said
            if not said:
                end = time.monotonic() + seconds
            said += part


@contextlib.contextmanager
def _unreadable() -> Iterator[None]:
    """Without namespaces a program is of the same user: this process's memory and environment are closed to it meanwhile."""
    if sys.platform != "linux":
        yield
        return
    get, put = 3, 4  # PR_GET_DUMPABLE, PR_SET_DUMPABLE
    libc = ctypes.CDLL(None)
    before = libc.prctl(get, 0, 0, 0, 0)
    libc.prctl(put, 0, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(put, before, 0, 0, 0)
