"""Every rank of every kind of training killed at every step, one after the other: python -m tests.ranks.chain SHARD.

Each start of two ranks goes on from the checkpoint that the kill before it has left, and is killed itself one step later.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.train.ranks import Ranks
from tests.ranks.test_stage import ARMS, Shared, jobs, train
from tests.ranks.two import on_ranks

STEPS = range(2, 6)
"""At which a rank dies: training has five, and the first leaves nothing to go on from."""
LEFT = ("model/model.safetensors", "metrics.jsonl", "samples.jsonl")


def chain(arm: str, shard: str, folder: Path) -> tuple[int, list[str]]:
    """Kills, and the files that differ from those of two ranks that were left alone."""
    graph = Shared(folder)
    node = graph.plan[graph.plan.arms[arm][0]]
    for other in node.inputs.values():
        graph.done.get(other) or graph.run(other)
    given = jobs(graph, (arm,))
    whole, killed, kills = folder / f"whole-{shard}", folder / f"killed-{shard}", 0
    for place in (whole, killed):
        place.mkdir()
    on_ranks(partial(train, given, whole), 2, whole, shard=shard)
    for step in STEPS:
        try:
            on_ranks(partial(die, step, step % 2, given, killed), 2, killed, shard=shard)
        except UserError as error:
            kills += f"rank {step % 2} of 2 was killed by SIGKILL" in str(error)
    on_ranks(partial(train, given, killed), 2, killed, shard=shard)
    return kills, [name for name in LEFT if (whole / arm / name).read_bytes() != (killed / arm / name).read_bytes()]


def die(step: int, number: int, given: Mapping[str, Any], out: Path, ranks: Ranks, scratch: Path, report: Any) -> None:
    def told(done: float, total: float, **shown: Any) -> None:
        if done == step and ranks.first == (number == 0):
            os.kill(os.getpid(), signal.SIGKILL)

    train(given, out, ranks, scratch, told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shard", choices=("ddp", "fsdp"))
    parser.add_argument("--arm", choices=ARMS, action="append")
    given = parser.parse_args()
    for arm in given.arm or ARMS:
        with tempfile.TemporaryDirectory() as name:
            kills, differing = chain(arm, given.shard, Path(name))
            print(f"{given.shard} {arm}: {kills} kills, {len(differing)} of {len(LEFT)} files differ", *differing, flush=True)


if __name__ == "__main__":
    main()
