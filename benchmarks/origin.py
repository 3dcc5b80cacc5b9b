"""Which stages made a page of docs/results: a record beside each page, and a mark in it where they have changed since.

`PAGE.json` holds the version of every kind of stage that the page's run was made by. Where one has changed since, the page says
so below its title; `tests/test_studies.py` fails where that mark is missing or wrong. `python -m benchmarks.origin
docs/results` renews all marks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from evenhand.stages import KINDS, spec_class

MARK = "*Made by older stages: "


def code_versions() -> dict[str, int]:
    """Kind of stage -> the version that the code has."""
    return {kind: spec_class(kind).VERSION for kind in KINDS}


def of_run(run: Path) -> dict[str, int]:
    """Kind -> version of a run's stages, as its `experiment.json` has them."""
    nodes = json.loads((run / "experiment.json").read_text(encoding="utf-8"))["nodes"]
    return {node["kind"]: node["version"] for node in sorted(nodes, key=lambda node: node["kind"])}


def record(page: Path) -> Path:
    """Where the record of a page lies."""
    return page.with_suffix(".json")


def write(page: Path, run: Path) -> None:
    """Notes beside the page what its run was made by."""
    record(page).write_text(json.dumps({"stages": of_run(run)}, indent=1) + "\n", encoding="utf-8")


def mark(made_by: Mapping[str, int], now: Mapping[str, int]) -> str:
    """What the page must say: empty where nothing has changed.

    >>> mark({"fit": 3, "judge": 4}, {"fit": 4, "judge": 4})
    '*Made by older stages: fit 3 (now 4). The same file may give other numbers today.*'
    >>> mark({"fit": 4, "judge": 4}, {"fit": 4, "judge": 4, "data": 2})
    ''
    """
    apart = [
        f"{kind} {version} ({f'now {now[kind]}' if kind in now else 'gone'})"
        for kind, version in sorted(made_by.items())
        if now.get(kind) != version
    ]
    return f"{MARK}{', '.join(apart)}. The same file may give other numbers today.*" if apart else ""


def marked(text: str, line: str) -> str:
    """A page's text with this mark below its title in place of the one that it has.

    >>> marked("# A\\n\\n*Made by older stages: fit 3 (now 4). X*\\n\\nB\\n", "")
    '# A\\n\\nB\\n'
    """
    title, _, rest = text.partition("\n\n")
    if rest.startswith(MARK):
        rest = rest.partition("\n\n")[2]
    return "\n\n".join(filter(None, (title, line, rest)))


def main() -> None:
    now = code_versions()
    for page in sorted(Path(sys.argv[1]).glob("*.md")):
        if record(page).exists():
            made_by = json.loads(record(page).read_text(encoding="utf-8"))["stages"]
            page.write_text(marked(page.read_text(encoding="utf-8"), mark(made_by, now)), encoding="utf-8")


if __name__ == "__main__":
    main()
