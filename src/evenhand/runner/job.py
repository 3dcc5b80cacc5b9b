"""A node of the plan made self-contained, so that a worker process needs nothing else."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from evenhand.configfile.schema import to_json
from evenhand.plan.costs.machine import processor
from evenhand.runner.installed import versions
from evenhand.stages.setup import Setup

if TYPE_CHECKING:
    from evenhand.plan.graph import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A node made self-contained: `inputs` are keys, `meta` is what the artifact will say about its origin."""

    name: str
    kind: str
    spec: Any
    seed: int
    inputs: Mapping[str, str]
    key: str
    meta: Mapping[str, Any]

    @property
    def ranks(self) -> int:
        """Processes that run its stage together."""
        return world_size(self.spec)


def world_size(spec: Any) -> int:
    """Processes that run a stage together: one for all stages but training."""
    setup = getattr(spec, "setup", None)
    return setup.compute.world_size if isinstance(setup, Setup) else 1


@functools.cache
def machine() -> dict[str, str]:
    """The processor: rounding differs between makes, and so do artifacts."""
    return {"processor": processor()}


def without_folders(value: Any) -> Any:
    """A spec without the folders of this machine: of a text that is an absolute path the last part is kept.

    >>> without_folders({"path": "/home/me/data/pairs.jsonl", "name": "org/model", "files": ["~/a.txt"]})
    {'path': 'pairs.jsonl', 'name': 'org/model', 'files': ['a.txt']}
    """
    if isinstance(value, str):
        return PurePath(value).name if value.startswith(("/", "~/")) and "\n" not in value else value
    if isinstance(value, Mapping):
        return {name: without_folders(item) for name, item in value.items()}
    return [without_folders(item) for item in value] if isinstance(value, list | tuple) else value


def as_job(node: Node, keys: Mapping[str, str]) -> Job:
    """The node with its inputs as keys."""
    inputs = {role: keys[name] for role, name in node.inputs.items()}
    meta = {
        "name": node.name,
        "kind": node.kind,
        "spec": without_folders(to_json(node.spec)),
        "seed": node.seed,
        "inputs": {role: {"name": name, "key": keys[name]} for role, name in node.inputs.items()},
        "key": node.key,
        "versions": versions(),
        "machine": machine(),
    }
    return Job(name=node.name, kind=node.kind, spec=node.spec, seed=node.seed, inputs=inputs, key=node.key, meta=meta)
