"""Hostile files, made by a seed: rows of every format with one thing or many out of order, and bytes out of order.

`python -m tests.data.fuzzing READER... --cases N` tries N of them on each reader and prints what came of it. Every case must end
with groups that can be written and read again, or with a UserError.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import logging
import random
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from evenhand.data.jsonl import iter_groups, read_groups, write_groups
from evenhand.data.load import load
from evenhand.data.stream import GroupStream
from evenhand.errors import UserError

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
CALL = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "A"}'}}
ROWS: list[dict[str, Any]] = [
    {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 1.0},
    {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": [{"role": "assistant", "content": "b"}], "chosen_score": 2},
    {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    {"chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "b"}]},
    {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": "b"},
    {"prompt": "q", "completions": ["a", "b", "c"], "scores": [1, 0.5, None]},
    {"prompt": "q", "completions": ["a", "b"], "ranks": [1, 2]},
    {"instruction": "q", "generations": ["a", "b"], "ratings": ["4", 5]},
    {"prompt": "q", "completion": "a", "label": True},
    {"messages": TURNS, "kto_tag": False},
    {"messages": TURNS, "tools": [{"type": "function", "function": {"name": "clock"}}], "chat_template_kwargs": {"x": 1}},
    {"messages": [TURNS[0], {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "1"},
     TURNS[1]]},
    {"messages": [TURNS[0], {"role": "assistant", "content": "a", "reasoning_content": "hm", "weight": 1}]},
    {"messages": [TURNS[0], {"role": "assistant", "content": [{"type": "text", "text": "a"},
     {"type": "thinking", "thinking": "b"}]}]},
    {"instruction": "q", "input": "i", "output": "a", "history": [["x", "y"]], "system": "s"},
    {"instruction": "q", "instances": [{"input": "i", "output": "a"}]},
    {"question": "q", "answer": "It is #### 1,234"},
    {"context_messages": TURNS[:1], "label": "72"},
    {"turns": ["q", "r"]},
    {"text": "Some words. And more.\n\nAnd yet more."},
    {"prompt": "q", "id": "x", "meta": {"k": 1}, "completions": [{"content": "a", "tokens": [1, 2], "finish": "stop",
     "behaviour_logp": [-1.0, None]}], "scores": [1.0], "parts": {"p": [0.5]}},
    {"prompt": [{"role": "user", "content": "q", "extra": {"name": "n"}}, {"role": "assistant", "content": "b", "prefill": True}],
     "id": "y", "meta": {}, "options": {"tools": []}, "completions": [{"content": [{"role": "assistant", "content": "a"}]}],
     "scores": [None], "parts": {}},
]  # fmt: skip
"""A row of each format; the last two as evenhand writes them."""
CANONICAL = ROWS[-2:]


def deep(levels: int, kind: str = "list") -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value] if kind == "list" else {"a": value}
    return value


HOSTILE: list[Callable[[random.Random], Any]] = [
    *(lambda r, v=v: v for v in (
        None, True, False, 0, -1, 2, 1.5, 1e308, -0.0, float("nan"), float("inf"), 10**400, -(10**400), 10**4200, 1 << 70,
        "", " ", "\n", "\x00", "\ud800", "a\udc80b", "\u00b2", "\u0661", "NaN", "inf", "1e999", "[", "{", "[]", "{}", "\u2028",
        "\uffff", "\ufeff", "q", "a", 3, "0" * 400, "\n\nHuman:", "\n\nAssistant:", "<think>", "system", "tool", "user",
        -1e-320, [], {}, [[]], [None], [{}], {"role": "user"}, {"content": "x"}, {"role": 3, "content": []}, ["a"], ["a", "a"],
        {"a.b": {"c": 1}}, {"": ""},
    )),
    lambda r: deep(r.choice((50, 99, 101, 400))), lambda r: deep(r.choice((50, 99, 101, 400)), "object"),
    lambda r: "x" * r.choice((100, 5000, 100000)), lambda r: list(range(r.choice((10, 3000)))),
    lambda r: {f"k{i}": i for i in range(r.choice((5, 2000)))}, lambda r: r.random() * 10 ** r.randint(-300, 300),
    lambda r: "".join(chr(r.randrange(1, 0x11000)) for _ in range(r.randint(1, 20))),
    lambda r: r.choice(ROWS),
    lambda r: list(r.choice(ROWS).values()), lambda r: [TURNS[0]] * r.randint(1, 5),
    lambda r: [{**TURNS[1], "weight": r.choice((0, 1))}],
]  # fmt: skip
_MORE = (
    "role from content value thinking tool_calls function_call weight train name prefix images image extra refusal finish tokens "
    "type text arguments function promt choosen status a.b"
)
WORDS = sorted({"", "x" * 3000, *_MORE.split(), *(k for row in ROWS for k in row)})
SOURCES: list[dict[str, Any]] = [
    {},
    {},
    {},
    {"use": "prompts"},
    {"use": "demonstrations"},
    {"use": "pairs"},
    {"use": "binary"},
    {"style": "chat"},
    {"style": "verbatim", "wrap": "Q: {prompt}"},
    {"transcripts": "verbatim"},
    {"grades": "ignore"},
    {"keep": []},
    {"limit": 2},
    {"per_prompt": 1},
    {"margin": 0.5},
    {"shuffle_seed": 1},
    {"clean": {"turns": "merge"}},
    {"clean": {"turns": "drop", "identical": "drop"}},
    {"clean": {"duplicates": "near"}},
    {"clean": {"duplicates": "exact", "by": "prompt"}},
    {"columns": {"prompt": "question"}},
    {"columns": {"prompt": "messages.0.content", "completion": "messages.1.content"}},
    {"format": "messages"},
    {"format": "evenhand"},
    {"format": "prompt/completions/scores"},
    {"format": "chosen/rejected"},
    {"steps": [{"remove_prefix": {"column": "completion", "prefix": "prompt"}}]},
    {"steps": [{"rename": {"prompt": "question"}}]},
    {"steps": [{"fill": {"prompt": "Q {meta.k} {completions}"}}]},
    {"steps": [{"keep": {"column": "label", "in": [True, 1]}}]},
    {"steps": [{"keep": {"column": "margin", "above": 0}}]},
    {"steps": [{"split": {"column": "answer", "at": "####", "into": ["completion", "gold"]}}]},
    {"steps": [{"remove": {"column": "prompt", "pattern": "q+"}}, {"ending": {"column": "prompt", "old": "q", "new": "r"}}]},
    {"steps": [{"answers": {"list": "completions", "text": "content", "score": "finish", "join": "messages", "match": "role"}}]},
    {"steps": [{"pair": {"first": "chosen", "second": "rejected", "winner": "label", "first_is": 1, "second_is": 0}}]},
    {"steps": [{"collect": {"by": "prompt", "text": "completion", "score": ["label"]}}]},
]


# rows -------------------------------------------------------------------------------------------------------------------


def mutated(row: Any, r: random.Random) -> Any:
    """A copy of a row in which one place is replaced, renamed, doubled or gone."""
    row = json.loads(json.dumps(row))
    holder, key = row, r.choice(list(row)) if row else ""
    for _ in range(r.randint(0, 4)):
        inner = holder.get(key) if isinstance(holder, dict) else holder[key]
        if not isinstance(inner, dict | list) or not inner:
            break
        holder, key = inner, r.choice(list(inner)) if isinstance(inner, dict) else r.randrange(len(inner))
    what = r.random()
    if what < 0.7 or isinstance(holder, list):
        holder[key] = r.choice(HOSTILE)(r)
    elif what < 0.8:
        holder.pop(key, None)
    else:
        holder[r.choice(WORDS)] = holder.pop(key, None) if what < 0.9 else r.choice(HOSTILE)(r)
    return row


def some_rows(r: random.Random, rows: list[dict[str, Any]]) -> list[Any]:
    base = r.choice(rows)
    made = [base if r.random() < 0.4 else mutated(base, r) for _ in range(r.randint(1, 5))]
    return [mutated(row, r) if isinstance(row, dict) and row and r.random() < 0.2 else row for row in made]


def text_of(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True)


def spoiled(data: bytes, r: random.Random) -> bytes:
    """Bytes with a few of them out of order."""
    for _ in range(r.randint(1, 3)):
        at = r.randrange(len(data) + 1)
        piece = r.choice((
            b"", b"\x00", b"\xff\xfe", b"\xe9", b"\r", b"\n", b'"', b"[" * 3000, b"{" * 200, b"9" * 5000, b"\xef\xbb\xbf", b",",
            b"}", b"\xed\xa0\x80", b"1e400", b"NaN", b'"prompt": 1, ', b"\t", bytes(r.randrange(256) for _ in range(8)),
        ))  # fmt: skip
        data = data[:at] + piece + data[at + r.choice((0, 0, 1, 40)) :]
    return data


# files ------------------------------------------------------------------------------------------------------------------


def _lines(r: random.Random, folder: Path) -> Path:
    data = "\n".join(map(text_of, some_rows(r, ROWS))).encode()
    return _written(folder / "case.jsonl", data, r)


def _list(r: random.Random, folder: Path) -> Path:
    data = text_of(some_rows(r, ROWS) if r.random() < 0.9 else {"train": some_rows(r, ROWS)}).encode()
    return _written(folder / "case.json", data, r)


def _table(r: random.Random, folder: Path, delimiter: str = ",") -> Path:
    rows, out = [row for row in some_rows(r, ROWS) if isinstance(row, dict)], io.StringIO(newline="")
    names = list(dict.fromkeys(n for row in rows for n in row))
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(names)
    for row in rows:
        cells = [row.get(n) for n in names]
        writer.writerow([c if isinstance(c, str | float) else "" if c is None else text_of(c) for c in cells])
    data = out.getvalue().encode("utf-8", "surrogatepass")
    return _written(folder / f"case.{'csv' if delimiter == ',' else 'tsv'}", data, r)


def _written(path: Path, data: bytes, r: random.Random) -> Path:
    data = spoiled(data, r) if r.random() < 0.4 else data
    if r.random() < 0.05:
        path, data = path.with_name(path.name + ".gz"), gzip.compress(data, 1)
        data = spoiled(data, r) if r.random() < 0.5 else data
    path.write_bytes(data)
    return path


def _parquet(r: random.Random, folder: Path) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [row for row in some_rows(r, ROWS) if isinstance(row, dict)]
    names = list(dict.fromkeys(n for row in rows for n in row))
    columns = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns.append(pa.array(values))
        except Exception:
            columns.append(pa.array([text_of(v).encode()[:5000] for v in values]))
    path = folder / "case.parquet"
    try:
        parquet.write_table(pa.table(columns, names=names), path)
    except pa.ArrowNotImplementedError:  # objects without a field
        parquet.write_table(pa.table([pa.array([text_of(row.get(n)) for row in rows]) for n in names], names=names), path)
    if r.random() < 0.3:
        path.write_bytes(spoiled(path.read_bytes(), r))
    return path


def _text(r: random.Random, folder: Path) -> Path:
    data = "\n\n".join(str(r.choice(HOSTILE)(r) if r.random() < 0.5 else "Some words. And more.")[:9000] for _ in range(4))
    return _written(folder / "case.txt", data.encode("utf-8", "replace"), r)


def _folder(r: random.Random, folder: Path) -> Path:
    import datasets

    datasets.disable_progress_bars()
    rows = [row for row in some_rows(r, ROWS) if isinstance(row, dict)]
    names = list(dict.fromkeys(n for row in rows for n in row))
    path = folder / "case"
    shutil.rmtree(path, ignore_errors=True)
    try:
        made = datasets.Dataset.from_dict({n: [row.get(n) for row in rows] for n in names})
    except Exception:
        made = datasets.Dataset.from_dict({n: [text_of(row.get(n)) for row in rows] for n in names})
    made.save_to_disk(str(path))
    if r.random() < 0.3:
        file = r.choice(sorted(path.iterdir()))
        file.write_bytes(spoiled(file.read_bytes(), r))
    return path


def _canonical(r: random.Random, folder: Path) -> Path:
    data = "\n".join(map(text_of, some_rows(r, CANONICAL))).encode()
    return _written(folder / "case.jsonl", data, r)


MAKERS: dict[str, Callable[[random.Random, Path], Path]] = {
    "jsonl": _lines,
    "json": _list,
    "csv": _table,
    "tsv": lambda r, folder: _table(r, folder, "\t"),
    "parquet": _parquet,
    "text": _text,
    "dataset": _folder,
    "canonical": _canonical,
}


def tried(reader: str, seed: int, folder: Path) -> str:
    """One case through its reader: "groups", or the UserError's first words; any other exception comes out."""
    r = random.Random(f"{reader} {seed}")
    for old in folder.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    path = MAKERS[reader](r, folder)
    source = {"path": str(path), "on_bad_row": r.choice(("error", "skip")), **r.choice(SOURCES)}
    if reader == "text":
        source = {"path": str(path), **r.choice(({}, {"opening_words": 3}, {"opening_sentences": 1}, {"separator": "a"}))}
    elif r.random() < 0.05 and path.is_file():
        source["encoding"] = r.choice(("utf-16", "latin-1", "utf-32", "ascii", "utf-8-sig"))
    try:
        if reader == "canonical" and r.random() < 0.5:
            groups = list(iter_groups(path))
        elif reader != "text" and r.random() < 0.2:
            whole = ("limit", "per_prompt", "shuffle_seed", "clean")
            groups = list(GroupStream({k: v for k, v in source.items() if k not in whole}, window=2))
        else:
            made = load(source)
            groups, _ = made.groups, (made.fingerprint, made.prompts, made.description)
    except UserError as error:
        return "refused" if len(str(error)) < 20000 else f"a message of {len(str(error))} characters"
    again = folder / "again.jsonl"
    write_groups(again, groups)
    assert len(read_groups(again)) == len(groups)
    return "groups"


def cases(reader: str, count: int, start: int = 0) -> Iterator[tuple[int, str, float]]:
    """(seed, what came of it, seconds of this process) of `count` cases; a traceback for what should not have come."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        for seed in range(start, start + count):
            began = time.process_time()
            try:
                outcome = tried(reader, seed, Path(name))
            except Exception:
                outcome = traceback.format_exc()
            yield seed, outcome, time.process_time() - began
    logging.disable(logging.NOTSET)


def report(reader: str, count: int, start: int) -> None:
    """Prints a line each tenth of the way: what came of the cases, how many took over a second, the slowest, peak memory."""
    found: Counter[str] = Counter()
    slowest = (0.0, 0)
    for number, (seed, outcome, seconds) in enumerate(cases(reader, count, start), 1):
        fine = outcome in ("groups", "refused")
        found[outcome if fine else "uncaught"] += 1
        found["over a second"] += seconds > 1
        slowest = max(slowest, (seconds, seed))
        if not fine:
            print(f"  seed {seed}: {outcome}", flush=True)
        if number % max(1, count // 10) == 0 or number == count:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            counted = ", ".join(f"{found[name]} {name}" for name in ("groups", "refused", "uncaught", "over a second"))
            print(
                f"{reader}: {number} cases: {counted}, slowest {slowest[0]:.3f} s (seed {slowest[1]}), peak {peak} MiB",
                flush=True,
            )


def main() -> None:
    """Tries the readers that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", nargs="*", help=", ".join(MAKERS))
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--start", type=int, default=0, help="The first seed.")
    given = parser.parse_args()
    for reader in given.reader or list(MAKERS):
        report(reader, given.cases, given.start)


if __name__ == "__main__":
    main()
