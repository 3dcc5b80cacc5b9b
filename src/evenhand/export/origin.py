"""Where a model comes from, as far as the public may know it: names on the Hub are said, paths of this machine are not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evenhand.export.subject import Subject, artifact, node, spec_of
from evenhand.report.run_data import RunData
from evenhand.results.files import read_json

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
SPLITS = ("demonstrations", "preferences", "prompts", "heldout_preferences", "heldout_prompts")
_ADDRESSES = ("endpoint", "cache", "store")
"""Settings that say how something is reached from here, not what it is."""


def base_model(run: RunData) -> str | None:
    """The base model's name on the Hub; None for a local folder, a model made in the run, and where the run no longer says."""
    spec = spec_of(run, "base").get("model") or {}
    path = spec.get("path")
    local = spec.get("fingerprint") is not None  # of the folder's bytes, taken when the run was planned
    return path if path and not local and HUB_NAME.fullmatch(path) else None


def base_in_words(run: RunData) -> str:
    """What the base model was."""
    given = (run.experiment.get("effective") or {}).get("model") or {}
    if name := base_model(run):
        return name
    if given.get("pretrain") is not None:
        return "a small model made in the run, from scratch"
    return f"a local folder called {Path(str(given['path'])).name}" if given.get("path") else "not recorded"


def datasets(run: RunData) -> list[str]:
    """Names on the Hub of the data sets the run read, in order; local files are left out."""
    spec = spec_of(run, "data")
    local = spec.get("fingerprints") or {}
    source = spec.get("source") or {}
    found = (name for split in SPLITS if source.get(split) for name in _named(source[split], bool(local.get(split))))
    return list(dict.fromkeys(name for name in found if HUB_NAME.fullmatch(name)))


def data_in_words(run: RunData) -> tuple[list[str], dict[str, int]]:
    """(what the data were read from, rows of each split), as the data stage noted them."""
    folder = artifact(run, "data")
    if folder is None or not (folder / "description.json").is_file():
        return [], {}
    noted = read_json(folder / "description.json")
    return [str(s) for s in noted.get("sources") or ()], dict(noted.get("splits") or {})


def start_in_words(run: RunData, name: str) -> str:
    """What a stage called `name` started from, in words."""
    start = (node(run, name).get("inputs") or {}).get("start")
    return {"base": "the base model", "sft": "the run's supervised model", None: ""}.get(start, f"the run's {start}")


def starts_from_base(subject: Subject) -> bool:
    """Whether the model was trained from the base itself, a model that others have."""
    return (node(subject.run, str(subject.meta.get("name") or "")).get("inputs") or {}).get("start") == "base"


def public(value: Any) -> Any:
    """A configuration without this machine in it: absolute and relative paths keep their last part, addresses go.

    >>> public({"path": "/home/me/data/pairs.jsonl", "name": "org/set", "endpoint": "http://10.0.0.3/v1"})
    {'path': 'pairs.jsonl', 'name': 'org/set', 'endpoint': '(left out)'}
    """
    if isinstance(value, Mapping):
        return {k: "(left out)" if k in _ADDRESSES and v else public(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [public(v) for v in value]
    return Path(value).name if isinstance(value, str) and _is_path(value) else value


def _is_path(text: str) -> bool:
    return "\n" not in text and (text.startswith(("/", "~", "./", "../")) or bool(re.match(r"[A-Za-z]:\\", text)))


def _named(source: Any, local: bool) -> Iterator[str]:
    """Hub names in one data source."""
    from evenhand.data.recipes import with_recipe

    if isinstance(source, str):
        if not local and "/" in source and not _is_path(source):
            yield source
        return
    source = with_recipe(source) if source.get("recipe") else source
    for part in source.get("mix") or ():
        yield from _named(part, local)
    if source.get("name") and not source.get("path"):
        yield str(source["name"])
