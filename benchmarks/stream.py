"""A million preference rows from file to packed batches in bounded memory: rate, peak, and an exact resume.

`python -m benchmarks.stream [--rows 1000000] [--folder DIR]`. Rows are synthetic; the tokenizer is the quickstart world's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from evenhand import worlds
from evenhand.data.batch import pack, split_by_tokens
from evenhand.data.stream import GroupStream
from evenhand.data.template import Renderer

CHUNK, BUDGET, WINDOW = 512, 8192, 4096
WORDS = ("the", "moon", "river", "horse", "castle", "quiet", "bread", "snow", "garden", "letter", "harbour", "winter")


@dataclass(frozen=True)
class Measured:
    """What came out: counts, seconds, rows a second, and the peak memory of the process in MiB, before and after."""

    rows: int
    tokens: int
    batches: int
    seconds: float
    rows_per_second: float
    peak_before: float
    peak_after: float


def write_rows(path: Path, rows: int, seed: int = 0) -> None:
    """Synthetic preference pairs, one a line; every prompt names its number, so that no two are alike."""
    draw = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            said = [" ".join(draw.choices(WORDS, k=draw.randint(8, 24))) for _ in range(3)]
            row = {"prompt": f"{i} {said[0]}:", "chosen": f" {said[1]}.", "rejected": f" {said[2]}."}
            file.write(json.dumps(row) + "\n")


def stream_through(path: Path, limit: int | None = None) -> Measured:
    """Load, template, tokenise and pack; nothing is kept."""
    renderer = Renderer(worlds.get("quickstart").tokenizer())
    before, begun = peak(), time.perf_counter()
    rows = tokens = batches = 0
    for groups in chunks(GroupStream(str(path), window=WINDOW, seed=0), limit):
        done = renderer.tokenise_all(groups, max_prompt=64, max_completion=64).groups
        for indices in split_by_tokens([t.size for t in done], BUDGET):
            batch = pack([done[i] for i in indices])
            tokens, batches = tokens + batch.layout.total, batches + 1
        rows += len(groups)
    seconds = time.perf_counter() - begun
    return Measured(rows, tokens, batches, round(seconds, 1), round(rows / seconds), before, peak())


def resumed_equals_whole(path: Path, stop: int, window: int = WINDOW) -> bool:
    """Whether a stream stopped after `stop` groups and begun anew from its state gives what an unbroken one gives."""
    whole = GroupStream(str(path), window=window, seed=1)
    expected = digest(whole)
    first = GroupStream(str(path), window=window, seed=1)
    seen = hashlib.blake2b(digest_size=16)
    for group in islice(first, stop):
        seen.update(group.prompt.id.encode())
    again = GroupStream(str(path), window=window, seed=1)
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for group in again:
        seen.update(group.prompt.id.encode())
    return seen.hexdigest() == expected


def digest(stream: GroupStream) -> str:
    """A hash of the prompts of a stream in their order."""
    seen = hashlib.blake2b(digest_size=16)
    for group in stream:
        seen.update(group.prompt.id.encode())
    return seen.hexdigest()


def chunks(stream: GroupStream, limit: int | None) -> Iterator[list]:
    groups = islice(stream, limit)
    while chunk := list(islice(groups, CHUNK)):
        yield chunk


def peak() -> float:
    """MiB this process has held at most."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "pairs.jsonl"
        write_rows(path, given.rows)
        size = path.stat().st_size / 2**20
        print(json.dumps({"file_mib": round(size, 1), **asdict(stream_through(path))}, indent=1))
        stop = given.rows * 2 // 5 + 17
        print(f"stopped after {stop} rows and resumed: {'the same' if resumed_equals_whole(path, stop) else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
