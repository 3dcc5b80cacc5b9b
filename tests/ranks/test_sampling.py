"""Answers that two ranks sample and score, each a share of the prompts, are those that one process samples and scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evenhand import methods
from evenhand.engines.local import LocalEngine
from evenhand.stages.on_ranks import engine_on, reward_on
from evenhand.train.ranks import ONE, Ranks
from evenhand.types import Group, Prompt, Sampling, Scores
from tests.battery.world import network
from tests.engines.test_local import Letters
from tests.ranks.two import on_ranks

ASKED = ((3, 5), (7,), (1, 2, 4), (3, 5), (9, 9), (6, 1))
"""The fourth is the first once more: its completions go on with the numbers of those."""
PROMPTS = [Prompt(content=" ".join(map(str, ids)), id=str(ids)) for ids in ASKED]


class Counting:
    """A reward that knows which groups it was asked for."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, groups: Sequence[Group], /) -> list[Scores]:
        self.seen += [g.prompt.id for g in groups]
        return [Scores(values=tuple(float(sum(c.tokens or ())) for c in g.completions)) for g in groups]


def asked(ranks: Ranks) -> dict[str, Any]:
    """All that a rank knows afterwards, and what it was itself asked for."""
    policy, reward = network(methods.build("dpo", {}, steps=1, max_tokens=6)).float(), Counting()
    engine = LocalEngine(ranks.placed(policy), Letters())
    sampled = []
    ask = engine.generate
    engine.generate = lambda prompts, *rest, **named: sampled.extend(p.id for p in prompts) or ask(prompts, *rest, **named)
    groups = engine_on(ranks, engine, policy).generate(PROMPTS, 2, Sampling(max_tokens=6, seed=3))
    scores = reward_on(ranks, reward)(groups)
    return {
        "tokens": [[list(c.tokens) for c in g.completions] for g in groups],
        "logp": [x for g in groups for c in g.completions for x in c.behaviour_logp],
        "scores": [list(s.values) for s in scores], "sampled": sampled, "scored": reward.seen,
    }  # fmt: skip


def work(out: Path, ranks: Ranks, scratch: Path, report: Any) -> None:
    (out / f"rank-{ranks.rank}").write_text(json.dumps(asked(ranks)))


@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_two_ranks_sample_and_score_what_one_process_does(shard: str, tmp_path: Path) -> None:
    one = asked(ONE)
    on_ranks(partial(work, tmp_path), 2, tmp_path, shard=shard)
    many = [json.loads((tmp_path / f"rank-{rank}").read_text()) for rank in range(2)]
    for rank in many:
        assert rank["tokens"] == one["tokens"]
        assert rank["logp"] == pytest.approx(one["logp"], abs=1e-6)
        assert rank["scores"] == one["scores"]
    assert one["tokens"][0] != one["tokens"][3]
    for kind in ("sampled", "scored"):
        assert sorted(many[0][kind] + many[1][kind]) == sorted(one[kind]) == sorted(p.id for p in PROMPTS), "each once"
        assert many[0][kind]
        assert many[1][kind]
    assert not set(many[0]["sampled"]) & set(many[1]["sampled"]), "a prompt's occurrences are on one rank"
