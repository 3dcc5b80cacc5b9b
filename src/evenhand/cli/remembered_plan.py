"""What `--plan` said of a run whose stages are all there, kept to be said again at once.

Making a plan opens libraries, data and a tokenizer, which takes seconds. Once every stage is made and nothing is in the way, what
it says can change only with what was read to make it: this package, the libraries, the words of the command, the environment, and
the files that were opened. While none of them has changed, the artifacts are there and results can be written, it is said again
without opening any of them. Runs with code of the user's, or with names on a hub, are planned anew every time: what those stand
for can change unseen.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.configfile.text_file import json_object
from evenhand.registry import parts
from evenhand.store.fingerprint import PACKAGE, digest, file_state, installed, user_cache
from evenhand.store.store import Store
from evenhand.store.whole import unwritable, write_json

if TYPE_CHECKING:
    from evenhand.run_experiment import Run

ENVIRONMENT = ("EVENHAND_", "HF_", "XDG_", "HOME", "TRANSFORMERS_")
MOST = 1000
"""Files that a remembered plan may hang on."""
LONGEST_NAME = 1000
"""Characters of a path; a longer text is none."""
SETTLED_NS = 2_000_000_000
"""A file that was written within this time may change again without its time of change moving."""


@dataclass(frozen=True, slots=True)
class PlanText:
    """What `--plan` shows: the table's title and rows, and the lines below it."""

    title: str
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...]


def question(experiment: str, overrides: Sequence[str], out: Path | None) -> str:
    """A name of what is asked for, here and by this version."""
    named = {k: v for k, v in sorted(os.environ.items()) if k.startswith(ENVIRONMENT)}
    asked = [str(Path.cwd()), experiment, list(overrides), None if out is None else str(out)]
    # other folders come and go: setuptools brings one of its own as soon as it is imported
    folders = {folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages")) and os.path.isdir(folder)}
    found = {name for folder in folders for name in os.listdir(folder)}
    packages = sorted(name for name in found if name.endswith((".dist-info", ".egg-info")))  # with their versions
    return digest([asked, named, sys.version, packages, installed()])


def recall(asked: str) -> PlanText | None:
    """What was said, where it would be said again."""
    found = json_object(_place(asked))
    try:
        store, keys, files, text = Store(found["store"]), found["keys"], found["files"], found["text"]
        if any(unwritable(Path(place)) for place in (found["store"], found["out"])):
            return None
        if not store.has_all(keys) or any(file_state(Path(path)) != was for path, was in files.items()):
            return None
        return PlanText(text["title"], tuple(tuple(row) for row in text["rows"]), tuple(text["lines"]))
    except (LookupError, TypeError, AttributeError):
        return None


def remember(asked: str, prepared: Run, text: PlanText, opened: Sequence[str]) -> None:
    """Keeps what was said, where it hangs on nothing but files that are known and settled."""
    nodes = prepared.plan.nodes
    if not prepared.store.has_all(n.key for n in nodes):
        return
    effective = prepared.loaded.effective
    if prepared.plan.plugins or _elsewhere([effective, *(node.spec for node in nodes)]):
        return
    results = {prepared.store.root.absolute(), prepared.out.absolute()}
    files = {path: file_state(Path(path)) for path in [*_read(opened), *_named(effective, results)][: MOST + 1]}
    latest = max((was[1] for was in files.values() if was is not None), default=0)
    if len(files) > MOST or time.time_ns() - latest < SETTLED_NS:
        return
    record = {
        "store": str(prepared.store.root.absolute()), "out": str(prepared.out.absolute()), "keys": [n.key for n in nodes],
        "files": files, "text": asdict(text),
    }  # fmt: skip
    with suppress(OSError):  # a cache that cannot be written costs time, never a result
        _place(asked).parent.mkdir(parents=True, exist_ok=True)
        write_json(_place(asked), record)


@contextmanager
def watching() -> Iterator[list[str]]:
    """Inside, the files that this process opens."""
    opened: list[str] = []
    looking = True

    def seen(event: str, arguments: tuple[Any, ...]) -> None:
        if looking and event == "open" and isinstance(arguments[0], str):
            opened.append(os.path.abspath(arguments[0]))

    sys.addaudithook(seen)  # which stays for as long as the process does
    try:
        yield opened
    finally:
        looking = False


def _read(opened: Sequence[str]) -> Iterator[str]:
    """Opened files that are neither Python's nor this package's nor remembered by it: those that say what the run is."""
    libraries = (sys.prefix, sys.base_prefix, str(PACKAGE), str(user_cache()), "/proc/", "/sys/", "/dev/")
    yield from sorted({path for path in opened if not path.startswith(libraries) and not os.path.isdir(path)})


def _named(value: Any, results: Collection[Path]) -> Iterator[str]:
    """Files and folders that a configuration names, and the files inside: a library may read them where Python sees nothing.

    What the run itself writes is left out.
    """
    for _, text in parts(value):
        if not isinstance(text, str) or not text.strip() or "\n" in text or len(text) > LONGEST_NAME:
            continue
        path = Path(text).expanduser().absolute()
        if path.exists() and path not in results and path != Path.cwd():
            yield str(path)
            yield from map(str, sorted(path.rglob("*")) if path.is_dir() else ())


def _elsewhere(value: Any) -> bool:
    """Whether something is named by a hub's name or revision, or is a function of the user's."""
    return any(
        (key == "revision" and bool(part)) or (key, part) == ("kind", "function") or (isinstance(part, str) and _is_far(part))
        for key, part in parts(value)
    )


def _is_far(text: str) -> bool:
    plain = "\n" not in text and " " not in text
    return plain and (text.endswith(".py") or ("/" in text and not Path(text).expanduser().exists()))


def _place(asked: str) -> Path:
    return user_cache() / "plans" / f"{asked}.json"
