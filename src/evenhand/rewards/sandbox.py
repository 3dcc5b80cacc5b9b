"""Runs `program.py` of a folder under limits. Started by `code.run_program` as a script, with nothing but the standard library.

Arguments: processor seconds, memory in MiB, bytes per file, folder. On standard input: the word to print at the very end.
"""

import resource
import sys

BLOCKED = ("socket", "_socket", "ssl", "_ssl", "subprocess", "_posixsubprocess", "multiprocessing", "ctypes", "_ctypes")


def main() -> None:
    seconds, memory, file_bytes, folder = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    word = sys.stdin.read()
    with open(f"{folder}/program.py") as file:
        code = compile(file.read(), "program.py", "exec")
    unplug()
    limit(seconds, memory << 20, file_bytes)
    block()
    exec(code, {"__name__": "__main__"})
    print(f"\n{word}", flush=True)


def unplug() -> None:
    """Leave the network for an empty one, where the kernel lets a user do that; `block` stands behind it where not."""
    import ctypes

    new_user, new_network = 0x10000000, 0x40000000
    if sys.platform == "linux":
        ctypes.CDLL(None).unshare(new_user | new_network)


def limit(seconds: float, memory: int, file_bytes: int) -> None:
    """Limits of the kernel, inherited by children; a program cannot raise them again."""
    amounts = {
        resource.RLIMIT_CPU: int(seconds) + 1,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 32,
    }
    for kind, amount in amounts.items():
        _, hard = resource.getrlimit(kind)
        amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(kind, (amount, amount))


def block() -> None:
    """Importing a module of the network or of processes fails, and so do the functions of `os` that start a process."""
    import os

    for name in BLOCKED:
        sys.modules[name] = None  # the import system then raises ImportError
    for name in ("system", "popen", "fork", "forkpty", "execv", "execve", "posix_spawn", "posix_spawnp", "kill", "killpg"):
        if hasattr(os, name):
            setattr(os, name, refuse)


def refuse(*arguments, **options):
    raise PermissionError("not allowed here")


if __name__ == "__main__":
    main()
