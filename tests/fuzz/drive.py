"""Broken inputs by the thousand for the readers at the edges: each must give its value or its one message, within a second.

python -m tests.fuzz.drive [CASES] [READER ...]
"""

from __future__ import annotations

import json
import logging
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import evenhand
from evenhand.configfile.document import Document, parse
from evenhand.configfile.layers import override
from evenhand.errors import UserError
from evenhand.judges import completion, parse_verdict, template
from evenhand.judges.cache import Cache
from evenhand.spec.read import read_experiment
from evenhand.types import Prompt

SLOW = 1.0
"""Seconds that no case may take."""
CHUNK = 5000
"""Cases between two lines of figures."""
LONG = 20_000
"""Characters that no message may have."""
ODD = (
    "null",
    "true",
    "[]",
    "{}",
    '""',
    "0",
    "-1",
    "1e999",
    "NaN",
    "-Infinity",
    "9" * 5000,
    "0x" + "f" * 5000,
    '"\\ud800"',
    "\ud800",
    "\x00",
    "\x1b[31m",
    "\u202e",
    "\ufeff",
    "[" * 3000,
    "{" * 200,
    '{"a":' * 3000,
    "!!int abc",
    "!!timestamp abc",
    "!!timestamp 2020-01-01",
    "!!binary abc",
    "!!set {a}",
    "!!omap [a]",
    "!!float x",
    "!!bool maybe",
    "!!null x",
    "!!python/object:os.system x",
    "!!str {a: b}",
    "!!map [1]",
    "!x y",
    "&a [*a]",
    "&b {<<: *b}",
    "*nowhere",
    "<<: 3",
    "? [a]\n: b",
    '"\\U99999999"',
    '"\\xZZ"',
    "|",
    ">-",
    "\t",
    "%YAML 9.9\n---",
    "---\n---",
    "...",
    "'",
    '"',
    ":",
    "- ",
    "#",
    "1_0",
    "._",
    "1__",
    "+",
    "2020-01-01",
    "010",
    "1:30",
    "\n",
    " ",
    "a" * 2000,
    "🙂",
    "\u2028",
    "(a+)+$",
    "(",
    "[",
    "(?P<x>",
    "\\",
    "(?i)",
    "(?=",
    "{answer_a}",
    "{reference}",
    "A: 1",
    "=",
    ".",
    '"',
    "..",
    "a.b",
    "0.0",
    "²",
)


def bombs() -> list[str]:
    """Texts that grow when they are read."""
    anchors = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    anchors += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 12)]
    merges = ["m0: &m0 {k0: 1}"] + [f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}], k{i}: *m{i - 1}}}" for i in range(1, 24)]
    return ["\n".join(anchors), "\n".join(merges), "- " * 3000 + "x", "a: " * 50, "".join(f"{' ' * i}k:\n" for i in range(400))]


def mutated(text: str, draw: random.Random) -> str:
    """The text with a few pieces cut, doubled, swapped, or replaced by something odd."""
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        a, b = sorted(draw.randrange(len(text) + 1) for _ in range(2))
        b = min(b, a + draw.choice((0, 1, 5, 40, 400)))
        what = draw.randrange(6)
        if what == 0:
            text = text[:a] + text[b:]
        elif what == 1:
            text = text[:b] + text[a:b] * draw.choice((1, 2, 50)) + text[b:]
        elif what == 2:
            text = text[:a] + chr(draw.choice((draw.randrange(128), draw.randrange(0x3000)))) + text[b:]
        else:
            text = text[:a] + draw.choice(ODD) + text[b:]
    return text[: 1 << 18]


def replaced(value: Any, draw: random.Random) -> Any:
    """The JSON value with one of its parts replaced by something odd."""
    odd = (
        None,
        True,
        [],
        {},
        "",
        0,
        -1,
        1.5,
        10**30,
        float("nan"),
        float("inf"),
        "\ud800",
        "x" * 2000,
        [[[[]]]],
        {"a": {"b": []}},
        [1, "a"],
    )
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        return {**value, key: replaced(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        i = draw.randrange(len(value))
        return [*value[:i], replaced(value[i], draw), *value[i + 1 :]]
    return draw.choice(odd)


REPLY = {
    "id": "x",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Why.\nPreferred: A"},
            "logprobs": {
                "content": [
                    {
                        "token": "A",
                        "logprob": -0.1,
                        "top_logprobs": [{"token": "A", "logprob": -0.1}, {"token": "B", "logprob": -2.0}],
                    }
                ]
            },
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 1}},
}
TEXTS = (
    "<think>[[A]]</think>[[B]]",
    "[[A>>B]]",
    "Rating: [[7.5]]",
    "[[" + "9" * 400 + "]]",
    "<think>",
    "m",
    "Preferred: B",
    "[[A]]" * 300,
)
ROW = {
    "key": "k",
    "model": {"model": "m"},
    "attempt": 0,
    "text": "Preferred: A",
    "finish": "stop",
    "usage": {"prompt": 1, "completion": 2, "cached": 0},
    "tokens": [["A", {"A": -0.1}]],
    "seconds": None,
    "time": 1.5,
}
EXPERIMENT = """
name: fuzz
base: {path: models/small, revision: null}
data: {world: sentiment, prompts: 20}
seeds: [0, 1]
defaults: &defaults
  train: {steps: 10, learning_rate: 1e-4, prompts_per_step: 4}
arms:
  sft: {method: sft, <<: *defaults}
  dpo-0.1: {method: dpo, beta: 0.1, reference: sft}
  grpo: {method: grpo, reward: {kind: gold, world: sentiment}, completions_per_prompt: 4}
judge: {kind: llm, model: m, template: tldr, extra: {a: [1, 2.5, "x"]}}
x-note: |
  text
"""
SETTINGS = (
    "train.steps=50",
    'arms."dpo-0.1".beta=0.2',
    "seeds.0=3",
    "arms.sft.train={steps: 3}",
    "judge.extra.a.2=[1, 2]",
    "name=x",
    "seeds=",
)
QUICKSTART = Path(evenhand.__file__).with_name("builtin").joinpath("quickstart.yaml").read_text(encoding="utf-8")
TEMPLATES = sorted((path.read_text(encoding="utf-8") for path in template.FOLDER.glob("*.yaml")), key=len)[:4]  # the short ones
BUILT_IN = [template.get(name) for name in template.builtin()]


def judge_reply(draw: random.Random) -> None:
    reply = json.loads(json.dumps(REPLY))
    if draw.random() < 0.3:
        reply["choices"][0]["message"]["content"] = mutated(draw.choice(TEXTS), draw)
    for _ in range(draw.choice((0, 1, 1, 2))):
        reply = replaced(reply, draw)
    text = json.dumps(reply)
    body = (mutated(text, draw) if draw.random() < 0.4 else text).encode("utf-8", "surrogatepass")
    if draw.random() < 0.05:
        body = bytes(draw.randrange(256) for _ in range(draw.randrange(60))) + body[: draw.randrange(len(body) + 1)]
    try:
        found = completion.parse(body)
    except completion.Odd:
        return
    for form in ("text", "logprobs"):
        asked = draw.choice(BUILT_IN)
        if form == "text" or asked.variants:
            parse_verdict.read(asked, found, form)
    json.dumps(found.to_json(), ensure_ascii=False).encode("utf-8")


def judge_template(draw: random.Random) -> None:
    made = template.parse(mutated(draw.choice(TEMPLATES), draw), where="template")
    answers = {"answer_a": "x", "answer_b": "y"} if made.kind == "pair" else {"answer": "x"}
    made.messages(Prompt(content="q", meta={made.reference: "r"}), **answers)
    made.read(draw.choice(TEXTS))
    assert made.sha


def judge_cache(draw: random.Random) -> None:
    rows = [json.dumps(replaced(ROW, draw) if draw.random() < 0.7 else ROW) for _ in range(3)]
    text = "\n".join(mutated(row, draw) if draw.random() < 0.4 else row for row in rows)
    path = Path(_FOLDER.name, "cache.jsonl")
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    cache = Cache(path)
    for reply in cache._replies.values():
        parse_verdict.read(BUILT_IN[0], reply, "text")
        json.dumps(reply.to_json())


def yaml(draw: random.Random) -> None:
    text = draw.choice(bombs()) if draw.random() < 0.01 else EXPERIMENT
    json.dumps(parse(mutated(text, draw), "fuzz.yaml").data)


def experiment(draw: random.Random) -> None:
    read_experiment((mutated(QUICKSTART, draw) if draw.random() < 0.9 else EXPERIMENT) + "\n")


def overrides(draw: random.Random) -> None:
    given = [
        mutated(draw.choice(SETTINGS), draw) if draw.random() < 0.8 else draw.choice(SETTINGS)
        for _ in range(draw.choice((1, 2, 5)))
    ]
    if draw.random() < 0.02:
        given.append(".".join("a" * 5000) + "=1")
    json.dumps(override(_BASE, given).data)


_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")
_BASE: Document = parse(EXPERIMENT, "base.yaml")
READERS: dict[str, Callable[[random.Random], None]] = {
    "judge_reply": judge_reply,
    "judge_template": judge_template,
    "judge_cache": judge_cache,
    "yaml": yaml,
    "experiment": experiment,
    "overrides": overrides,
}


@dataclass
class Tally:
    """What became of the cases of one reader. `uncaught` and `slow` hold case numbers: the same number is the same case."""

    read: int = 0
    refused: int = 0
    uncaught: list[tuple[int, str]] = field(default_factory=list)
    slow: list[tuple[int, float]] = field(default_factory=list)
    longest: float = 0.0

    @property
    def fine(self) -> bool:
        return not self.uncaught and not self.slow

    def add(self, other: Tally) -> None:
        self.read, self.refused = self.read + other.read, self.refused + other.refused
        self.uncaught += other.uncaught
        self.slow += other.slow
        self.longest = max(self.longest, other.longest)

    def __str__(self) -> str:
        cases = self.read + self.refused + len(self.uncaught)
        return (
            f"{cases} cases, {self.read} read, {self.refused} refused, {len(self.uncaught)} uncaught, "
            f"{len(self.slow)} over a second, longest {self.longest:.2f} s"
        )


def drive(name: str, cases: Sequence[int]) -> Tally:
    """Cases by number."""
    tally, reader = Tally(), READERS[name]
    for case in cases:
        draw, start = random.Random(f"{name} {case}"), time.process_time()
        try:
            reader(draw)
            tally.read += 1
        except UserError as error:
            if len(str(error)) > LONG:
                tally.uncaught.append((case, f"a message of {len(str(error))} characters"))
            else:
                tally.refused += 1
        except BaseException as error:
            tally.uncaught.append((case, f"{type(error).__name__}: {error!s:.200}"))
        took = time.process_time() - start
        tally.longest = max(tally.longest, took)
        if took > SLOW:
            tally.slow.append((case, took))
    return tally


def main() -> None:
    logging.disable(logging.WARNING)  # the cache counts aloud what it cannot read
    cases, names = int(sys.argv[1]) if len(sys.argv) > 1 else 1000, sys.argv[2:] or list(READERS)
    fine = True
    for name in names:
        total = Tally()
        for start in range(0, cases, CHUNK):
            total.add(drive(name, range(start, min(start + CHUNK, cases))))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{name}: {total}, peak memory so far {peak:.0f} MiB", flush=True)
        fine &= total.fine
        for row in [*total.uncaught[:10], *total.slow[:10]]:
            print("   ", *row)
    raise SystemExit(not fine)


if __name__ == "__main__":
    main()
