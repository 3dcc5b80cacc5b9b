"""docs/results.schema.json, from the record: `python -m evenhand.manual.results docs/results.schema.json` writes it anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from evenhand.results.record import Results


def schema() -> str:
    """The JSON schema of `results.json`; its descriptions are the docstrings of `evenhand.results.record`."""
    from pydantic import TypeAdapter

    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", **TypeAdapter(Results).json_schema()}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema(), encoding="utf-8")
