"""The family tree of the methods, and where else each is found: two sections of docs/methods.md."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from statistics import median

from evenhand.methods import METHODS

TOOLS = {"TRL": "TRL 1.16", "OpenRLHF": "OpenRLHF", "verl": "verl", "study": "the 51-algorithm study"}


def facts() -> dict[str, tuple[str, str, Mapping[str, str]]]:
    """Every method with the one that it is made of ("" for none), what differs, and its names elsewhere."""
    declared = {name: entry.facts for name, entry in METHODS.entries.items()}
    return {name: (own.get("of", ""), own.get("differs", ""), own.get("elsewhere", {})) for name, own in declared.items()}


def tree() -> str:
    """A nested list: below each method those that change one thing of it."""
    known = facts()

    def lines(parent: str, depth: int) -> Iterator[str]:
        for name, (of, differs, _) in known.items():
            if of == parent:
                yield f"{'  ' * depth}- [{name}](#{name})" + (f": {differs}" if differs else "")
                yield from lines(name, depth + 1)

    size = median(map(declared, METHODS))
    about = (
        f"{len(METHODS)} methods. Below each stand those that change one thing of it. A declaration has {size:g} lines in the"
        " median, its docstring aside."
    )
    return f"## The family\n\n{about}\n\n" + "\n".join(lines("", 0))


def declared(name: str) -> int:
    """Lines of a method's declaration without its docstring."""
    (function,) = ast.parse(inspect.getsource(METHODS[name])).body
    assert isinstance(function, ast.FunctionDef)
    assert function.end_lineno is not None
    first, rest = function.body[0], function.body[1:]
    begin = min([function.lineno, *(d.lineno for d in function.decorator_list)])
    return function.end_lineno - begin + 1 - ((first.end_lineno or 0) - first.lineno + 1 if rest else 0)


def coverage() -> str:
    """A table of the methods that other tools have, and how many of these are only here."""
    known = {name: elsewhere for name, (_, _, elsewhere) in facts().items()}
    there = {name: found for name, found in known.items() if found}
    rows = [f"| [{name}](#{name}) | {' | '.join(found.get(tool, '') for tool in TOOLS)} |" for name, found in there.items()]
    alone = [f"`{name}`" for name, found in known.items() if not found]
    head = f"| here | {' | '.join(TOOLS.values())} |\n|---|{'---|' * len(TOOLS)}"
    text = (
        "## Where else\n\nNames under which other tools have a method; after a `~` a variant, or what differs from the paper.\n"
        "The study is arXiv:2603.19335 with its code. Read off the code of TRL 1.16.0, OpenRLHF 3c3be62, verl 1dda039 and oxRL"
        " 2a2bd5d."
    )
    return f"{text}\n\n{head}\n" + "\n".join(rows) + f"\n\nIn none of them: {', '.join(alone)}."
