"""Whether results and page of a run directory are what would be written now; they are left as they are then.

Both follow from finished artifacts alone, which the record of the run names by their keys, and from this package. Where nothing
was made, the record is the same and the files are as they were written, writing them again would change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from evenhand.configfile.begun import PLACE
from evenhand.configfile.text_file import json_object
from evenhand.results.files import NAME
from evenhand.store.fingerprint import content_digest, digest, installed
from evenhand.store.whole import write_json

RECORD = "experiment.json"
MADE = ".made.json"
"""From what the results were made, and what each file held that was made with them."""
PAGE = "report.html"
CSV, TEX, EVALUATIONS_CSV, EVALUATIONS_TEX = "results.csv", "results.tex", "evaluations.csv", "evaluations.tex"
EARLIER = "earlier-"
"""Before the names of files that an earlier experiment left in the folder."""
WITH_PAGE = (PAGE, CSV, TEX, EVALUATIONS_CSV, EVALUATIONS_TEX)
"""What `report.write` writes."""


def origin(folder: Path) -> str:
    """A name for all that results and page of a run follow from: its record, but for the place, and the files of this package."""
    record = {key: value for key, value in json_object(folder / RECORD).items() if key != PLACE}
    return digest([record, installed()])


def note_results(folder: Path) -> None:
    """Notes that the results have just been written: whatever else was made from older ones is no longer current."""
    write_json(folder / MADE, {"origin": origin(folder), "files": _contents(folder, (NAME,))})


def note_page(folder: Path) -> None:
    """Notes that the page has just been written from the results that are there."""
    made = json_object(folder / MADE)
    write_json(folder / MADE, {**made, "files": {**made.get("files", {}), **_contents(folder, WITH_PAGE)}})


def is_current(folder: Path, names: Sequence[str]) -> bool:
    """Whether the files `names` were made from what is there, and are what was written."""
    made = json_object(folder / MADE)
    files = made.get("files", {})
    return made.get("origin") == origin(folder) and _contents(folder, names) == {name: files.get(name) for name in names}


def set_aside(folder: Path) -> None:
    """Results that were made from another record than the one that is there keep their files, under names that nobody reads as
    this run's: `earlier-results.json`, then `earlier-2-results.json`. A page of a run under way, which has no results, stays."""
    if (folder / NAME).is_file() and not is_current(folder, (NAME,)):
        present = [name for name in (NAME, *WITH_PAGE) if (folder / name).is_file()]
        before = next(p for p in _before() if not any((folder / f"{p}{name}").exists() for name in (NAME, *WITH_PAGE)))
        for name in present:
            (folder / name).replace(folder / f"{before}{name}")


def _before() -> Iterator[str]:
    return (EARLIER if number == 1 else f"{EARLIER}{number}-" for number in count(1))


def _contents(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """A digest of each file; "" of one that is not there."""
    return {name: content_digest(folder / name) if (folder / name).is_file() else "" for name in names}
