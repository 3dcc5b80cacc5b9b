"""Library versions that did not stay the same while a run was made: between a stop and going on, or between stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evenhand.results.run_artifacts import RunArtifacts
from evenhand.store.store import changed_versions, read_note

_NAMED = 3
"""Stages that are named; of more, their number is said."""


def versions_apart(done: RunArtifacts) -> list[str]:
    """In words: stages that were begun with other versions than they ended with, and versions that not all stages share.

    Versions are in no key, so that an update does not cost what is finished: what they change is held equal only if they are.
    """
    notes = {
        n.name: note for n in done.plan.nodes if done.has(n.name) and (note := read_note(done.store.path(n.key))) is not None
    }
    return [changed_versions(note) for note in notes.values() if "begun_with" in note] + _between(
        {name: note.get("versions") or {} for name, note in notes.items()}
    )


def _between(versions: Mapping[str, Mapping[str, str]]) -> list[str]:
    packages = sorted(
        {p for of in versions.values() for p in of if any(of.get(p) != other.get(p) for other in versions.values())}
    )
    if not packages:
        return []
    made: dict[str, list[str]] = {}
    for name, of in versions.items():
        made.setdefault(", ".join(f"{p} {of.get(p, 'unknown')}" for p in packages), []).append(name)
    return [
        "not all stages were made with the same versions: " + "; ".join(f"{v} made {_some(names)}" for v, names in made.items())
    ]


def _some(names: Sequence[str]) -> str:
    """
    >>> _some(["base", "sft"]), _some(["a", "b", "c", "d", "e"])
    ('base, sft', 'a, b, c and 2 more')
    """
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
