"""The judge's self-test, before anyone believes its verdicts: pairs made of the data's own answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evenhand.data.jsonl import read_groups
from evenhand.judges import self_test
from evenhand.stages.common import setup, write_json
from evenhand.stages.judge import open_judge
from evenhand.types import Completion, Group, Prompt

SOURCES = ("heldout_demonstrations", "demonstrations", "heldout_preferences", "preferences")


def run(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], out: Path, report: Callable[..., None]) -> None:
    device = setup(spec)
    source, answers = known_answers(inputs, spec["prompts"])
    judge = open_judge(spec, inputs, out, device)
    write_json(out / "self_test.json", {**self_test(judge, answers, report), "source": source, "revision": judge.revision})


def known_answers(inputs: Mapping[str, Path], count: int) -> tuple[str, list[tuple[Prompt, Completion]]]:
    """Good answers of the data, different texts only: demonstrations, else preferred answers, else the baseline's own."""
    for split in SOURCES:
        path = inputs["data"] / f"{split}.jsonl"
        if path.exists() and (rows := _best(read_groups(path), count)):
            return split, rows
    return "the baseline's answers", _best(read_groups(inputs["answers"] / "generations.jsonl"), count)


def _best(groups: list[Group], count: int) -> list[tuple[Prompt, Completion]]:
    rows: dict[str, tuple[Prompt, Completion]] = {}
    for group in groups:
        if not group.completions:
            continue
        best = max(range(len(group.completions)), key=lambda i: group.scores[i])
        rows.setdefault(group.completions[best].text, (group.prompt, group.completions[best]))
        if len(rows) == count:
            break
    return list(rows.values())
