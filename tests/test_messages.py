"""What the text of an error names exists: every `--option` in the commands, every key in what an experiment file may say."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import typer
import yaml

from evenhand.cli import app
from evenhand.judges.template import Template
from evenhand.spec.keys import sections
from tests.test_architecture import graph

SRC = Path(__file__).resolve().parents[1] / "src" / "evenhand"
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
QUOTED = re.compile(r"`([^`]+)`")
PATH = re.compile(r"[a-z_]+(?:\.[A-Za-z_]+)+")
ANY = "*"
"""What a user calls: an arm, a split."""


def told(function: ast.AST) -> Iterator[str]:
    """Every text inside a function but its docstring, an f-string with `*` for what is put in."""
    parts = {id(value) for node in ast.walk(function) if isinstance(node, ast.JoinedStr) for value in ast.walk(node)} - {
        id(node) for node in ast.walk(function) if isinstance(node, ast.JoinedStr)
    }
    doc = next(iter(getattr(function, "body", [])), None)
    skipped = {id(doc.value)} if isinstance(doc, ast.Expr) else set()
    for node in ast.walk(function):
        if isinstance(node, ast.JoinedStr):
            yield "".join(v.value if isinstance(v, ast.Constant) else ANY for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts | skipped:
            yield node.value


@cache
def texts() -> list[tuple[str, str]]:
    """(file:function, text) of every function that makes a `UserError`."""
    found = []
    for path in sorted(SRC.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            makes = any(isinstance(n, ast.Call) and getattr(n.func, "id", "") == "UserError" for n in ast.walk(function))
            found += [(f"{path.relative_to(SRC)}:{function.name}", text) for text in told(function)] if makes else []
    return found


@cache
def options() -> dict[str, frozenset[str]]:
    """The options of the commands that stand in each module."""
    found: dict[str, set[str]] = defaultdict(set)
    waiting = [typer.main.get_command(app)]
    while waiting:
        command = waiting.pop()
        waiting += (inner := list(getattr(command, "commands", {}).values()))
        if command.callback is not None and not inner:
            module = getattr(command.callback, "__wrapped__", command.callback).__module__
            found[module] |= {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    return {module: frozenset(names) for module, names in found.items()}


def users(module: str) -> set[str]:
    """Modules that import it, itself included, at any distance."""
    seen, waiting = {module}, [module]
    while waiting:
        last = waiting.pop()
        new = {name for name, uses in graph().items() if last in uses} - seen
        seen |= new
        waiting += new
    return seen


@cache
def reachable(module: str) -> frozenset[str]:
    """The options of the commands in a module, or of those that may come to it."""
    if module in options():
        return options()[module]
    return frozenset(name for user in users(module) for name in options().get(user, ()))


OTHER_PROGRAMS = {("cli/from_trl.py", "--config"), ("rewards/isolation.py", "--security-opt"), ("cli/init.py", "--plan"),
                  ("export/gguf.py", "--outfile"), ("export/gguf.py", "--outtype"),
                  ("runner/ray_cluster.py", "--head"), ("engines/recompute.py", "--logprobs-mode")}  # fmt: skip
"""TRL's, Docker's, llama.cpp's, Ray's and vLLM's; and another command's, which is named with it."""


def test_every_option_that_a_message_names_is_one_of_its_commands() -> None:
    wrong, seen = set(), 0
    for where, text in texts():
        file = where.split(":")[0]
        module = ".".join(("evenhand", *file.removesuffix(".py").removesuffix("/__init__").split("/")))
        for option in OPTION.findall(text):
            seen += 1
            if option not in reachable(module) and (file, option) not in OTHER_PROGRAMS:
                wrong.add((where, option))
    assert not wrong
    assert seen > 60


@cache
def paths() -> frozenset[tuple[str, ...]]:
    """Every key path of an experiment file, `*` for names."""
    return frozenset(tuple(ANY if p.isupper() else p for p in key.path.split(".")) for s in sections() for key in s.keys)


def alike(path: tuple[str, ...], key: tuple[str, ...]) -> bool:
    """Whether the shorter of them begins the longer one, `*` for any name."""
    return all(a == b or ANY in (a, b) for a, b in zip(path, key, strict=False))


def known(text: str) -> bool:
    """Whether a dotted path is a key of the file, above one, or inside of one whose own keys are not listed."""
    path = tuple(text.split("."))
    leaves = (key for key in paths() if not any(len(other) > len(key) and alike(key, other) for other in paths()))
    return any(len(path) <= len(key) and alike(path, key) for key in paths()) or any(alike(path, leaf) for leaf in leaves)


INSIDE = {"A", "B", "input", "output", "dpo", "..."} | {field.name for field in fields(Template)}
"""Keys inside of values: a template's, a price's, an arm's name."""


FILES = (".html", ".json", ".jsonl", ".csv", ".yaml")


def test_every_key_that_a_message_names_is_one_of_the_file() -> None:
    sections_of_the_file, wrong, seen = {path[0] for path in paths()}, set(), 0
    names = {name for path in paths() for name in path} | INSIDE
    for where, text in texts():
        dotted = [q for q in QUOTED.findall(text) if PATH.fullmatch(q)]
        dotted += [text] if PATH.fullmatch(text) and text.split(".")[0] in sections_of_the_file else []
        wrong |= {(where, path) for path in dotted if not known(path) and not path.endswith(FILES)}
        for snippet in QUOTED.findall(text):
            if re.match(r"[a-z_]+:( |$)|\{", snippet):
                keys = list(keys_of(yaml.safe_load(snippet.replace(ANY, "x"))))
                seen += len(keys)
                wrong |= {(where, key) for key in keys if key not in names and key != "x"}
    assert not wrong
    assert seen > 60


def keys_of(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from keys_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)


def test_the_sweep_sees_what_is_wrong() -> None:
    assert not known("train.keep")
    assert known("arms.dpo.beta")
    assert list(keys_of(yaml.safe_load("train: {keep: best}"))) == ["train", "keep"]
    assert OPTION.findall("give --pairs, or --no-such-thing") == ["--pairs", "--no-such-thing"]
    assert list(told(ast.parse("def f(x):\n    'doc'\n    return f'use {x} --now', 'or'").body[0])) == ["use * --now", "or"]
