"""The benchmark on streams at a size for tests: what is held does not grow with the rows, and a resume loses nothing."""

from __future__ import annotations

import pytest

from benchmarks.stream import resumed_equals_whole, stream_through, write_rows
from evenhand.data.stream import GroupStream


def test_every_row_comes_through_once(tmp_path):
    path = tmp_path / "pairs.jsonl"
    write_rows(path, 1500)
    measured = stream_through(path)
    assert measured.rows == 1500
    numbers = sorted(int(g.prompt.text.split()[0]) for g in GroupStream(str(path), window=64, seed=3))
    assert numbers == list(range(1500))


@pytest.mark.parametrize("stop", [1, 63, 64, 65, 700, 1499])
def test_resume_in_mid_epoch_repeats_and_skips_nothing(tmp_path, stop):
    path = tmp_path / "pairs.jsonl"
    write_rows(path, 1500)
    assert resumed_equals_whole(path, stop, window=64)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    path = tmp_path / "pairs.jsonl"
    write_rows(path, 1_000_000)
    small = stream_through(path, limit=20_000)
    large = stream_through(path)
    assert large.rows == 1_000_000
    assert large.peak_after - small.peak_after < 64, "MiB"
