"""The answers that an arm was watched by while it trained, as they were drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evenhand.data.jsonl import turns_from_json
from evenhand.stages.splits import read_split
from evenhand.types import Completion, Finish, Group, Prompt

Row = Mapping[str, Any]


def training_samples(inputs: Mapping[str, Path], stops: frozenset[int]) -> list[tuple[Row, Group]]:
    """Every sample of the input `arm` as it was written, and as a group of one answer to the held-out prompt of `data`."""
    prompts = {g.prompt.id: g.prompt for g in read_split(inputs, "heldout_prompts")}
    return [(row, group(row, prompts[row["prompt_id"]], stops)) for row in written(inputs["arm"])]


def written(arm: Path) -> list[Row]:
    """The rows of a trained arm's samples.jsonl."""
    return [json.loads(line) for line in (arm / "samples.jsonl").read_bytes().split(b"\n") if line.strip()]


def group(row: Row, prompt: Prompt, stops: frozenset[int]) -> Group:
    """The sample on the very tokens that were drawn, so that all that read it read the same sequence, and as it ended: samples
    of before say that by their last token alone."""
    tokens = tuple(row["tokens"])
    finish = Finish(row["finish"]) if "finish" in row else Finish.STOP if tokens[-1] in stops else Finish.LENGTH
    turns, failed = turns_from_json(row.get("turns", ())), row.get("failed", "")
    told = Completion(content=row["completion"], tokens=tokens, finish=finish, turns=turns, failed=failed)
    return Group(prompt=prompt, completions=(told,))
