"""Preference fine-tuning with everything else held equal.

`run` and `load` give results (`evenhand.api`), `compare` sets several beside each other, and `evenhand.api.plan` says what a run
will cost; they are imported when they are asked for, so that `import evenhand` is light.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_API = {"run": "run", "load": "load", "compare": "compare", "Results": "RunResults"}
"""Names that live in `evenhand.api`."""


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(import_module("evenhand.api"), _API[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_API])
