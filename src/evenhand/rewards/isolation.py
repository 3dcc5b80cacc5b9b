"""How programs that a model wrote are kept apart from this machine: by bubblewrap, by the kernel's namespaces, or not at all."""

from __future__ import annotations

import functools
import json
import logging
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from evenhand.errors import UserError

_log = logging.getLogger(__name__)
Isolation = Literal["auto", "none"]
Mode = Literal["bwrap", "namespaces", "none"]
START = Path(__file__).parent / "sandbox" / "start.py"
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/dev/null", "/dev/zero", "/dev/urandom")
NOT_PROTECTED = (
    "files that this user may read or write, and what is sent through them; the number of programs at a time and their memory "
    "together; without a filter of system calls also the network and other processes of this user"
)


def mode_for(isolation: Isolation) -> Mode:
    """bubblewrap where it is installed and works, else namespaces where the kernel gives them. UserError where neither is, and
    `none` was not asked for."""
    if isolation not in ("auto", "none"):
        raise UserError(f"unknown value '{isolation}'", where="reward.isolation", fix="auto or none")
    found = _found()
    if found is not None:
        return found
    if isolation == "auto":
        raise UserError(
            "this machine cannot shut a program in: bubblewrap does not work and user namespaces are refused",
            where="reward code", why=f"not protected would be: {NOT_PROTECTED}",
            fix="install bubblewrap, or allow user namespaces (in Docker: --security-opt seccomp=unconfined); or set "
            "`isolation: none` where the machine itself may be harmed by what a model writes",
        )  # fmt: skip
    _warn_once()
    return "none"


@functools.cache
def _warn_once() -> None:
    _log.warning("programs of the model run without isolation, as asked; not protected: %s", NOT_PROTECTED)


def _found() -> Mode | None:
    modes: tuple[Mode, ...] = ("bwrap", "namespaces")
    return next((mode for mode in modes if works(mode)), None)


@functools.cache
def works(mode: Mode) -> bool:
    """Whether this machine can shut a program in like this; tried once."""
    if mode == "bwrap" and shutil.which("bwrap") is None:
        return False
    with TemporaryDirectory(prefix="evenhand-code-") as folder:
        limits = {"seconds": 5.0, "memory": 512, "file_bytes": 1 << 20, "total_bytes": 1 << 22}
        told = {"role": "probe", "mode": mode, "folder": folder, "user": unused_user(), **limits}
        done = subprocess.run(command(told), env={}, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=60)
    if done.stdout.strip() != b"confined":
        _log.info("%s does not work here: %s", mode, done.stderr.decode("utf-8", "replace").strip()[-300:])
    return done.stdout.strip() == b"confined"


def command(told: Mapping[str, Any]) -> list[str]:
    """The command line that starts one side of a test, as `sandbox/start.py` is told."""
    visible = _visible()
    python = [os.path.realpath(sys.executable), "-I", "-S", str(START)]
    argument = json.dumps({**told, "visible": visible})
    if told["mode"] != "bwrap":
        return [*python, argument]
    binds = [part for path in [*visible, str(START.parent)] for part in _bound(path)]
    return [
        shutil.which("bwrap") or "bwrap",
        "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL", *binds,
        "--proc", "/proc", "--dev", "/dev", "--size", str(told["total_bytes"]), "--tmpfs", "/box", "--chdir", "/box",
        "--remount-ro", "/", "--", *python, argument,
    ]  # fmt: skip


def _bound(path: str) -> list[str]:
    if path.startswith("/dev/"):
        return []
    return ["--symlink", os.readlink(path), path] if os.path.islink(path) else ["--ro-bind", path, path]


def _visible() -> list[str]:
    """What a program may see of this machine: the system's libraries and the interpreter with its standard library."""
    home = [sys.base_prefix, str(Path(os.path.realpath(sys.executable)).parents[1])]
    paths = [p for p in dict.fromkeys((*_SYSTEM, *home)) if os.path.lexists(p)]
    return [p for p in paths if p in _SYSTEM or not any(p == s or p.startswith(f"{s}/") for s in _SYSTEM)]


def unused_user() -> int:
    """A user that owns nothing, for a program that root starts: other programs' users are others."""
    return (1 << 30) + random.SystemRandom().randrange(1 << 29)
