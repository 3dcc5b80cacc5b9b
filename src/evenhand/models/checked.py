"""What self-checks have found, remembered for the length of a stage: models of one kind are checked once in it.

What a check looks at (is it causal, does it take a packed tree, are its logits its head's) follows from a model's code and config
and not from what it has learned. A stage opens its models in a fixed order, so what it remembers depends on nothing before it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Concatenate, ParamSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

P = ParamSpec("P")
_PASSED: ContextVar[set[Hashable] | None] = ContextVar("passed", default=None)


@contextmanager
def remembered() -> Iterator[None]:
    """Inside, a check that a model has passed is not made again of another one of its kind. A failure is found each time."""
    before = _PASSED.set(set())
    try:
        yield
    finally:
        _PASSED.reset(before)


def problem(
    check: Callable[Concatenate[PreTrainedModel, P], str | None], hf: PreTrainedModel, *more: P.args, **named: P.kwargs
) -> str | None:
    """What `check` says of `hf` (why it cannot do what is asked of it), or None where a model of its kind has passed."""
    passed = _PASSED.get()
    if passed is None:
        return check(hf, *more, **named)
    kind = (check, *_kind(hf))
    if kind in passed:
        return None
    if (found := check(hf, *more, **named)) is None:
        passed.add(kind)
    return found


def _kind(hf: PreTrainedModel) -> tuple[Hashable, ...]:
    """All that a model's way of computing follows from: its modules, config, attention, precision and device."""
    some = next(hf.parameters())
    modules = tuple(type(module) for module in hf.modules())
    return (modules, hf.config.to_json_string(), hf.config._attn_implementation, some.dtype, some.device)
