from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from evenhand.data.config import DataConfig
from evenhand.stages.data import DataSpec, from_sources, from_world

BASE = DataConfig(holdout=0.3)


def rows(path: Path, made) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in made))
    return str(path)


def test_what_is_held_out_of_one_split_is_held_out_of_all(tmp_path):
    pairs = rows(tmp_path / "pairs.jsonl", ({"prompt": f"p{i}", "chosen": " a", "rejected": " b"} for i in range(60)))
    demos = rows(tmp_path / "demos.jsonl", ({"prompt": f"p{i}", "completion": " a"} for i in range(60)))
    splits, said = from_sources(replace(BASE, preferences=pairs, demonstrations=demos), 0)
    held = {g.prompt.id for g in splits["heldout_prompts"]}
    assert held == {g.prompt.id for g in splits["heldout_preferences"]}
    assert 8 <= len(held) <= 28
    for name in ("prompts", "preferences", "demonstrations"):
        assert held.isdisjoint(g.prompt.id for g in splits[name])
        assert len(splits[name]) == 60 - len(held)
    assert len(said) == 2


def test_named_held_out_splits_are_taken_as_they_are(tmp_path):
    prompts = rows(tmp_path / "prompts.jsonl", ({"prompt": f"p{i}"} for i in range(10)))
    heldout = rows(tmp_path / "heldout.jsonl", ({"prompt": f"h{i}"} for i in range(3)))
    splits, _ = from_sources(replace(BASE, prompts=prompts, heldout_prompts=heldout), 0)
    assert len(splits["prompts"]) == 10
    assert [g.prompt.content for g in splits["heldout_prompts"]] == ["h0", "h1", "h2"]


def test_a_world_gives_every_split_at_its_size():
    sizes = {"demonstrations": 3, "preferences": 4, "prompts": 5, "heldout_preferences": 6, "heldout_prompts": 7}
    spec = DataSpec(source=DataConfig(world="quickstart", sizes=sizes), corpus=8)
    splits, _ = from_world(spec, 0)
    assert {k: len(v) for k, v in splits.items()} == {**sizes, "corpus": 8}


def test_more_held_out_prompts_begin_with_the_same_and_need_nothing_else():
    few, more = (
        from_world(DataSpec(source=DataConfig(world="quickstart", sizes={"heldout_prompts": n}), only=("heldout_prompts",)), 3)[0]
        for n in (5, 9)
    )
    assert list(few) == list(more) == ["heldout_prompts"]
    assert more["heldout_prompts"][:5] == few["heldout_prompts"]
    assert len(more["heldout_prompts"]) == 9
