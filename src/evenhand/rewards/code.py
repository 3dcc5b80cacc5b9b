"""Programs judged by their tests, in a process of their own. Off unless asked for by name: it runs a model's code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from evenhand.errors import UserError
from evenhand.rewards.pointwise import Pointwise, meta_field, pointwise
from evenhand.types import Completion, Prompt

FENCE = re.compile(r"```(?:python|py)?\s*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program may use: wall and processor seconds, memory in MiB, and bytes per file that it writes."""

    seconds: float = 5.0
    memory: int = 512
    file_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended. `detail` is the end of what it wrote to its error stream, or "timeout"."""

    passed: bool
    detail: str


def unit_tests(*, field: str = "tests", limits: Limits | None = None) -> Pointwise:
    """1 if the program in the answer runs through the tests in `meta[field]` (a text, or a list of assertions), else 0.

    The program is the last fenced block of the answer, or all of it. **This runs code that a model wrote.** It runs in a
    fresh folder and process without the caller's environment, with limits on time, memory, files and processes, and
    without sockets as far as Python goes; that stops accidents and lazy mischief, not a determined attacker: use a
    container or a virtual machine for models that you do not trust.
    """
    if sys.platform == "win32":
        raise UserError("unit tests need resource limits, which Windows lacks", where="reward code", fix="use Linux or macOS")
    limits = limits or Limits()

    def score(prompt: Prompt, completion: Completion) -> float:
        tests = meta_field(prompt, field, "code")
        text = tests if isinstance(tests, str) else "\n".join(tests)
        return float(run_program(f"{program_in(completion.text)}\n\n{text}\n", limits).passed)

    return pointwise(score, name="code")


def program_in(text: str) -> str:
    """The last fenced block, or the whole text.

    >>> program_in("Here:\\n```python\\nx = 1\\n```\\nDone.")
    'x = 1\\n'
    """
    blocks = FENCE.findall(text)
    return blocks[-1] if blocks else text


def run_program(source: str, limits: Limits) -> Outcome:
    """Run a program to its end under `limits`; it passes if it ends with status 0 after its very last line.

    An early `sys.exit(0)` does not pass: only the last line, which the guard adds, prints the word that is looked for.
    """
    word = os.urandom(8).hex()
    with tempfile.TemporaryDirectory(prefix="evenhand-code-") as folder:
        Path(folder, "program.py").write_text(source)
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("sandbox.py"))]
        command += [str(limits.seconds), str(limits.memory), str(limits.file_bytes), folder]
        process = subprocess.Popen(
            command, cwd=folder, env={"PATH": "/usr/bin:/bin", "HOME": folder}, text=True, errors="replace",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            out, error = process.communicate(word, timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # its own session: children, if any, die with it
            process.communicate()
            return Outcome(False, "timeout")
    if process.returncode < 0:
        return Outcome(False, f"killed by signal {-process.returncode}: over a limit")
    return Outcome(process.returncode == 0 and out.rstrip().endswith(word), error[-500:])
