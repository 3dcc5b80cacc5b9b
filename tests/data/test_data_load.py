import gzip
import json

import pytest

from evenhand.data.files import local_files
from evenhand.data.jsonl import write_groups
from evenhand.data.load import load
from evenhand.errors import UserError
from evenhand.types import Completion, Finish, Group, Prompt

ROWS = [
    {"prompt": "q\u2028one", "chosen": "a\r\nb", "rejected": "c", "id": 1},
    {"prompt": 'é, "two"', "chosen": "[not json", "rejected": "{0}", "id": 2},
]


def write_csv(path, rows, delimiter=","):
    import csv

    with open(path, "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_dataset(path, rows):
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(str(path))


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


WRITERS = {
    "r.jsonl": lambda p: p.write_bytes(lines(ROWS)),
    "bom.jsonl": lambda p: p.write_bytes(b"\xef\xbb\xbf" + lines(ROWS)),
    "crlf.jsonl": lambda p: p.write_bytes(lines(ROWS).replace(b"}\n", b"}\r\n")),
    "r.jsonl.gz": lambda p: p.write_bytes(gzip.compress(lines(ROWS))),
    "r.json": lambda p: p.write_text(json.dumps(ROWS, indent=1)),
    "r.csv": lambda p: write_csv(p, ROWS),
    "r.tsv": lambda p: write_csv(p, ROWS, "\t"),
    "r.parquet": lambda p: write_parquet(p, ROWS),
    "folder": lambda p: write_dataset(p, ROWS),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_file_type_gives_the_same_groups(tmp_path, name):
    WRITERS[name](tmp_path / name)
    data = load(str(tmp_path / name))
    assert [g.prompt.content for g in data.groups] == ["q\u2028one", 'é, "two"']
    assert [[c.content for c in g.completions] for g in data.groups] == [["a\r\nb", "c"], ["[not json", "{0}"]]
    assert data.kind == "preference pairs"
    assert [str(g.prompt.meta["id"]) for g in data.groups] == ["1", "2"]


def test_messages_in_csv_and_parquet(tmp_path):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    write_csv(tmp_path / "r.csv", [{"messages": json.dumps(turns)}])
    write_parquet(tmp_path / "r.parquet", [{"messages": turns}])
    first, second = load(str(tmp_path / "r.csv")), load(str(tmp_path / "r.parquet"))
    assert first.groups[0].prompt == second.groups[0].prompt
    assert first.groups[0].completions[0].text == "a"


def test_a_list_inside_a_json_object(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({"train": ROWS, "test": []}))
    assert len(load({"path": str(tmp_path / "r.json"), "field": "train"})) == 2
    with pytest.raises(UserError, match="no field 'trian'") as error:
        load({"path": str(tmp_path / "r.json"), "field": "trian"})
    assert "'train'" in error.value.fix


def test_splits_of_a_dataset_folder(tmp_path):
    import datasets

    data = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])}
    datasets.DatasetDict(data).save_to_disk(str(tmp_path / "d"))
    assert len(load({"path": str(tmp_path / "d"), "split": "test"})) == 1
    with pytest.raises(UserError, match="several splits: train, test"):
        load(str(tmp_path / "d"))
    with pytest.raises(UserError, match="no split 'tset'"):
        load({"path": str(tmp_path / "d"), "split": "tset"})


def test_a_hub_name_that_cannot_be_reached_is_said_in_one_line(monkeypatch):
    import datasets

    def unreachable(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'org/none' on the Hub (offline mode)\nlong traceback")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match=r"cannot load the data set 'org/none': .*Couldn't reach.*\(offline mode\)") as error:
        load("org/none")
    assert "local file" in error.value.fix
    assert "traceback" not in str(error.value)


def test_a_hub_name_is_read_like_a_file(monkeypatch):
    import datasets

    asked = {}

    def loader(name, config, **kwargs):
        asked.update(name=name, config=config, **kwargs)
        return datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)})

    monkeypatch.setattr(datasets, "load_dataset", loader)
    data = load({"name": "org/pairs", "config": "c", "revision": "abc"})
    assert len(data) == 2
    assert (asked["name"], asked["config"], asked["revision"], asked["split"]) == ("org/pairs", "c", "abc", None)
    assert data.description.startswith("org/pairs: preference pairs")


def test_several_files_limit_shuffle_and_use(tmp_path):
    for part in range(2):
        rows = [{"prompt": f"p{part}{i}", "completion": f"c{i}"} for i in range(5)]
        (tmp_path / f"{part}.jsonl").write_bytes(lines(rows))
    both = [str(tmp_path / "0.jsonl"), str(tmp_path / "1.jsonl")]
    whole = load({"path": both})
    assert [g.prompt.content for g in whole.groups] == [f"p{p}{i}" for p in range(2) for i in range(5)]
    assert [g.prompt.content for g in load({"path": both, "limit": 6}).groups] == ["p00", "p01", "p02", "p03", "p04", "p10"]
    mixed = load({"path": both, "shuffle_seed": 5, "limit": 4})
    assert mixed.groups == load({"path": both, "shuffle_seed": 5}).groups[:4]
    assert "the first 4 after shuffling" in mixed.description
    assert {g.prompt.id for g in load({"path": both, "use": "prompts"}).groups} == {p.id for p in whole.prompts}


def test_groups_written_by_evenhand_come_back_whole(tmp_path):
    sampled = Completion(content="x", tokens=(4, 2), behaviour_logp=(-0.5, -0.25), finish=Finish.STOP)
    group = Group(prompt=Prompt(content="p", meta={"a": 1}), completions=(sampled,), scores=(0.5,), parts={"rm": (0.5,)})
    write_groups(tmp_path / "g.jsonl", [group])
    data = load(str(tmp_path / "g.jsonl"))
    assert data.groups == [group]
    assert data.kind == "groups"


def test_fingerprint_depends_on_the_groups_alone(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(ROWS))
    (tmp_path / "b.json").write_text(json.dumps(ROWS))
    (tmp_path / "c.json").write_text(json.dumps(ROWS[::-1]))
    a, b, c = (load(str(tmp_path / n)).fingerprint for n in ("a.jsonl", "b.json", "c.json"))
    assert a == b
    assert a != c


def test_files_that_a_source_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in "abcde":
        (tmp_path / f"{name}.jsonl").write_text('{"prompt": "q"}\n')
    a, b, c, d = (str(tmp_path / f"{n}.jsonl") for n in "abcd")
    assert local_files(a) == [tmp_path / "a.jsonl"]
    assert local_files("~/e.jsonl") == [tmp_path / "e.jsonl"]
    assert len(load("~/e.jsonl")) == 1
    assert local_files({"path": [a, b], "clean": {"against": [{"path": c}, d]}}) == [tmp_path / f"{n}.jsonl" for n in "abcd"]
    assert local_files({"mix": [a, {"path": b, "weight": 2}, {"recipe": "shp", "path": c}]}) == [
        tmp_path / f"{n}.jsonl" for n in "abc"
    ]
    assert local_files({"recipe": "mix1", "local": {"shp": d}}) == [tmp_path / "d.jsonl"]
    assert local_files({"recipe": "shp"}) == []
