"""Everything a source can do, from an experiment file: the Hub by name, streaming, mixtures, cleaning, splits by prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evenhand.spec.read import read_experiment
from evenhand.stages.data import from_sources
from evenhand.types import Group


def splits_of(**data: Any) -> dict[str, list[Group]]:
    """The splits of an experiment that says so of its data."""
    given = {"name": "s", "model": {"path": "m"}, "data": data, "reward_models": {"rm": {"train": {"steps": 1}}}}
    return from_sources(read_experiment(given).value.data, 0)[0]


def rows(path: Path, *made: dict) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in made))
    return str(path)


def pair(prompt: str, chosen: str = "yes", rejected: str = "no") -> dict:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_name_is_asked_for_as_the_file_says(monkeypatch, streaming):
    asked = []

    def load_dataset(name, config, **options):
        asked.append((name, config, options))
        return (pair(f"p{i}") for i in range(10**9)) if streaming else [pair(f"p{i}") for i in range(5)]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    source = {"name": "org/set", "config": "c", "split": "s", "revision": "r", "files": "a/*.parquet", "streaming": streaming}
    made = splits_of(preferences={**source, "limit": 4}, holdout=0.0)
    assert asked == [("org/set", "c", {"revision": "r", "streaming": streaming, "data_files": "a/*.parquet", "split": "s"})]
    assert [g.prompt.content for g in made["preferences"]] == ["p0", "p1", "p2", "p3"]


def test_mixtures_by_weight_cap_and_temperature(tmp_path):
    big = rows(tmp_path / "big.jsonl", *(pair(f"big {i}") for i in range(90)))
    small = rows(tmp_path / "small.jsonl", *(pair(f"small {i}") for i in range(10)))

    def counts(**options: Any) -> tuple[int, int]:
        made = splits_of(preferences={"mix": [{"path": big, **options.pop("big", {})}, {"path": small}], **options}, holdout=0.0)
        names = [g.prompt.meta["dataset"] for g in made["preferences"]]
        return names.count("big"), names.count("small")

    assert counts() == (90, 10)
    assert counts(size=20) == (18, 2), "by size"
    assert counts(size=8, temperature=2.0) == (6, 2), "sqrt 90 : sqrt 10 = 3 : 1"
    assert counts(big={"cap": 10}, size=10) == (5, 5)
    assert counts(big={"weight": 10}, size=10) == (5, 5), "a weight stands for the size"


def test_duplicates_and_evaluation_prompts_are_taken_out(tmp_path):
    story = "the quick brown fox jumps over the lazy dog and then runs far away from the old grey house"
    question = "why does the tide come in twice a day and not only once as the moon does"
    given = rows(
        tmp_path / "train.jsonl", pair(story), pair(story), pair(story.replace("grey", "red")), pair(f"tell me: {question} ?"),
        pair("same", "x", "x"), pair("kept"),
    )  # fmt: skip
    heldout = rows(tmp_path / "heldout.jsonl", {"prompt": question})
    clean = {"duplicates": "near", "threshold": 0.6, "identical": "drop", "against": [heldout], "ngram": 13}
    made = splits_of(preferences={"path": given, "clean": clean}, holdout=0.0)
    assert [g.prompt.content for g in made["preferences"]] == [story, "kept"]


def test_splits_are_by_prompt_and_the_same_every_time(tmp_path):
    given = rows(tmp_path / "p.jsonl", *(pair(f"p{i % 40}", f"a{i}") for i in range(120)))
    first, second = (splits_of(preferences=given, holdout=0.25) for _ in range(2))
    assert first == second
    trained, held = ({g.prompt.id for g in first[s]} for s in ("preferences", "heldout_preferences"))
    assert trained.isdisjoint(held)
    assert len(trained) + len(held) == 40
    longer = rows(tmp_path / "more.jsonl", *(pair(f"p{i % 50}", f"a{i}") for i in range(150)))
    assert held <= {g.prompt.id for g in splits_of(preferences=longer, holdout=0.25)["heldout_preferences"]}


def test_chats_with_faults_are_left_out_and_said(tmp_path):
    def turns(*said: tuple[str, str]) -> dict:
        return {"messages": [{"role": r, "content": c} for r, c in said]}

    given = rows(
        tmp_path / "chat.jsonl",
        turns(("user", "hi"), ("assistant", "hello")),
        turns(("user", "hi"), ("user", "again"), ("assistant", "hello")),
        turns(("user", " "), ("assistant", "hello")),
        turns(("user", "hi"), ("wizard", "hello")),
    )
    source = {"path": given, "on_bad_row": "skip"}

    def asked(**clean: str) -> list[str]:
        made = splits_of(demonstrations={**source, "clean": clean}, holdout=0.0)
        return [g.prompt.text for g in made["demonstrations"]]

    assert asked(turns="keep") == ["hi", "hi\nagain"]
    assert asked(turns="drop") == ["hi"]
    assert asked(turns="merge") == ["hi", "hi\n\nagain"]
