"""Tool calls that a model writes as text, in the form that Hermes and Qwen models are trained on."""

from __future__ import annotations

import json
import re
from typing import Any

CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)


def tool_calls(text: str) -> list[dict[str, Any]]:
    """The calls `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` of a text, in order, as chat messages hold them.

    What stands between the marks and is no such object is left out: a model that writes it is told nothing, as one that calls
    no tool.

    >>> tool_calls('Let me see. <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>')[0]["function"]["name"]
    'add'
    >>> tool_calls("<tool_call>add(1)</tool_call>")
    []
    """
    found = []
    for number, body in enumerate(CALL.findall(text)):
        try:
            call = json.loads(body)
        except (ValueError, RecursionError):  # a model's text: anything may be in it
            continue
        if isinstance(call, dict) and isinstance(call.get("name"), str):
            told = {"name": call["name"], "arguments": json.dumps(call.get("arguments", {}))}
            found.append({"id": f"call_{number}", "type": "function", "function": told})
    return found
