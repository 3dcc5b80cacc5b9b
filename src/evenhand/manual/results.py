"""docs/results.schema.json, from the record: `python -m evenhand.manual` writes it anew."""

from __future__ import annotations

import json

from evenhand.results.record import Results


def schema() -> str:
    """The JSON schema of `results.json`; its descriptions are the docstrings of `evenhand.results.record`."""
    from pydantic import TypeAdapter

    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", **TypeAdapter(Results).json_schema()}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"
