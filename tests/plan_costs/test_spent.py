"""What making an artifact took: noted beside it, gone with it, shown on the page beside what was said before."""

from __future__ import annotations

import json
import mmap

from evenhand.plan.costs import keep
from evenhand.plan.costs.forecast import StageCost, StageForecast
from evenhand.report.stage_costs import stage_costs
from evenhand.runner import peak
from evenhand.store import spent
from evenhand.store.spent import Spent
from evenhand.store.store import Store

KEY = "ab" * 16


def test_a_note_comes_back_and_goes_with_its_artifact(tmp_path):
    store = Store(tmp_path, reserve=0)
    with store.open(KEY, {}):
        pass
    assert spent.read(tmp_path, KEY) is None
    note = Spent(seconds=3.5, processor_seconds=2.0, peak_bytes=10)
    spent.note(tmp_path, KEY, note)
    assert spent.read(tmp_path, KEY) == note
    (tmp_path / f"{KEY}.spent.json").write_text("{half")
    assert spent.read(tmp_path, KEY) is None
    spent.note(tmp_path, KEY, note)
    store.discard(KEY)
    assert spent.read(tmp_path, KEY) is None
    assert [p.name for p in tmp_path.iterdir() if "spent" in p.name] == []


def test_the_peak_counts_from_where_it_is_begun():
    """Pages of the system's own: what an allocator has free and keeps would be used again, and nothing more be held."""

    def held(size: int) -> mmap.mmap:
        pages = mmap.mmap(-1, size)
        for start in range(0, size, mmap.PAGESIZE):
            pages[start] = 1
        return pages

    held(160 << 20).close()
    peak.begin()
    before = peak.reached()
    with held(80 << 20):
        after = peak.reached()
    assert before is not None
    assert after is not None
    assert 60 << 20 < after - before < 100 << 20, "80 MiB were held"


def test_the_page_has_both_and_their_ratio(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    cost = StageCost(seconds=30, peak_bytes=3 * 2**30, tokens=1, disk_bytes=1)
    keep.keep_prediction(store, KEY, StageForecast(node="arms/dpo/seed-0", predicted=cost))
    spent.note(store, KEY, Spent(seconds=20, peak_bytes=2 * 2**30))
    spent.note(store, "cd" * 16, Spent(seconds=1))
    nodes = [
        {"name": "arms/dpo/seed-0", "key": KEY}, {"name": "data", "key": "cd" * 16}, {"name": "other", "key": "ef" * 16},
    ]  # fmt: skip
    first, second = stage_costs(tmp_path, json.loads(json.dumps({"store": "store", "nodes": nodes})))
    assert (first.node, first.memory, first.time) == (
        "arms/dpo/seed-0", ("3.00 GiB", "2.00 GiB", "x 1.50"), ("30 s", "20 s", "x 1.50"),
    )  # fmt: skip
    assert second.node == "data"
    assert second.time[1] == "1.0 s"
    assert "x" not in second.time[2]
