import itertools
import json

import pytest

from evenhand.data.load import load
from evenhand.data.stream import GroupStream
from evenhand.errors import UserError


@pytest.fixture
def source(tmp_path):
    """Rankings, so that a row gives several pairs; one row is bad, one is left out by a step."""
    rows = [{"prompt": f"p{i}", "completions": ["a", "b", "c"], "scores": [1, 2, 3], "n": i} for i in range(50)]
    rows[20]["scores"] = [1]
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path), "use": "pairs", "on_bad_row": "skip", "steps": [{"keep": {"column": "n", "is_not": 7}}]}


def names(groups):
    return [(g.prompt.content, g.completions[0].content, g.completions[1].content) for g in groups]


def test_a_stream_gives_every_group_once_per_epoch(source):
    stream = GroupStream(source, window=16, seed=1)
    found = names(stream)
    assert sorted(found) == sorted(names(load(source).groups))
    assert len(found) == 48 * 3
    assert stream.skipped == 1


def test_window_of_one_keeps_the_order_of_the_file(source):
    prompts = [g.prompt.content for g in GroupStream({**source, "use": "demonstrations"}, window=1)]
    assert prompts == [f"p{i}" for i in range(50) if i not in (7, 20)]


def test_windows_are_shuffled_by_seed_and_epoch(source):
    first, other = names(GroupStream(source, window=60, seed=1)), names(GroupStream(source, window=60, seed=2))
    assert first != other
    assert sorted(first[:60]) == sorted(other[:60]), "shuffled within the window only"
    both = names(GroupStream(source, window=60, seed=1, epochs=2))
    assert both[:144] == first
    assert both[144:] != first
    assert sorted(both[144:]) == sorted(first)


@pytest.mark.parametrize("stop", [0, 1, 17, 18, 50, 143, 144, 200])
def test_resume_is_exact(source, stop):
    whole = names(GroupStream(source, window=16, seed=3, epochs=2))
    stream = GroupStream(source, window=16, seed=3, epochs=2)
    head = names(itertools.islice(stream, stop))
    state = json.loads(json.dumps(stream.state_dict()))
    again = GroupStream(source, window=16, seed=3, epochs=2)
    again.load_state_dict(state)
    assert head + names(again) == whole


def test_a_stream_without_end(source):
    assert len(list(itertools.islice(GroupStream(source, window=8, epochs=None), 1000))) == 1000


def test_what_needs_all_rows_is_refused(source):
    for more in ({"clean": {"duplicates": "exact"}}, {"per_prompt": 2}, {"shuffle_seed": 1}, {"use": "prompts"}, {"limit": 3}):
        with pytest.raises(UserError, match=f"'.*{next(iter(more))}.*' needs all rows in memory"):
            GroupStream({**source, **more})


def test_a_bad_row_stops_a_strict_stream(source):
    with pytest.raises(UserError, match=r"r\.jsonl:21, field 'scores'"):
        list(GroupStream({**source, "on_bad_row": "error"}, window=4))


def test_recipes_can_be_streamed(tmp_path):
    path = tmp_path / "hh.jsonl"
    hh = "\n\nHuman: q\n\nAssistant:"
    path.write_text(json.dumps({"chosen": hh + " A", "rejected": hh + " B"}) + "\n")
    assert [g.completions[0].text for g in GroupStream({"recipe": "hh_rlhf", "path": str(path)})] == ["A"]
