"""What making an artifact took: seconds and the peak of its memory. Beside the artifact, never a part of it or of its key."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from evenhand.store.whole import write_whole

SUFFIX = ".spent.json"
"""In a store, beside the artifact: `KEY.spent.json`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """`peak_bytes` is the most memory that one process held at once: of the machine, or of its accelerator where it used one.

    It is None where the system does not say. `seconds` are those of the clock, `processor_seconds` what the process's threads
    computed in them: on a machine with other work the clock runs on while they wait. Of work that was resumed the last part
    counts; where several ranks shared it, `processor_seconds` are None.
    """

    seconds: float
    processor_seconds: float | None = None
    peak_bytes: int | None = None


def note(root: Path, key: str, spent: Spent) -> None:
    """Writes it down, whole or not at all; a later making of the same artifact replaces it."""
    write_whole(root / f"{key}{SUFFIX}", json.dumps(asdict(spent)) + "\n")


def read(root: Path, key: str) -> Spent | None:
    """What is known of an artifact; None where nothing is."""
    try:
        found = json.loads((root / f"{key}{SUFFIX}").read_text(encoding="utf-8"))
        return Spent(**{name: found[name] for name in ("seconds", "processor_seconds", "peak_bytes")})
    except (OSError, ValueError, LookupError, TypeError):
        return None


def forget(root: Path, key: str) -> None:
    """With the artifact goes what is known of it."""
    (root / f"{key}{SUFFIX}").unlink(missing_ok=True)
