"""What the fields of a dataclass mean: the text that stands below each in its source, the one place where it is written."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap

_UNIT = re.compile(r"\s*In (?P<unit>[a-z ]+)\.$")


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """Field -> the text below it, on one line; fields without one are left out. Bases come first."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if "__dataclass_fields__" in vars(base):
            found |= _below(base)
    return found


def _below(cls: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    return {
        item.target.id: " ".join(after.value.value.split())
        for item, after in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }


def parted(text: str) -> tuple[str, str]:
    """A meaning and its unit, which the last sentence says; "" for a number without one.

    >>> parted("Longest prompt. In tokens."), parted("Rows at most.")
    (('Longest prompt.', 'tokens'), ('Rows at most.', ''))
    """
    found = _UNIT.search(text)
    return (text[: found.start()], found["unit"]) if found else (text, "")
