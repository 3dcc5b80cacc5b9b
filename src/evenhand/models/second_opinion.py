"""Self-checks of networks in a narrow precision: what looks wrong there may be rounding, which float32 tells from a fault.

A deep network in bfloat16 turns the rounding of its inputs (2^-9 of their size) into some hundredths of its states: 0.03 to 0.08
were measured on thirty layers. Two right ways to compute it differ as much, and positions that are off by one hardly more. In
float32 the two agree to 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

P = ParamSpec("P")
NARROW = (torch.bfloat16, torch.float16)


def also_in_float32(
    check: Callable[Concatenate[PreTrainedModel, P], str | None],
) -> Callable[Concatenate[PreTrainedModel, P], str | None]:
    """A check that asks again in float32 where a network in a narrow precision has not passed; passing there is passing."""

    @wraps(check)
    def asked(hf: PreTrainedModel, *more: P.args, **named: P.kwargs) -> str | None:
        problem = check(hf, *more, **named)
        if problem is None or next(hf.parameters()).dtype not in NARROW:
            return problem
        try:
            with in_float32(hf):
                return None if check(hf, *more, **named) is None else problem
        except RuntimeError:  # a module reads the weights of another, which are narrow then
            return problem

    return asked


@contextmanager
def in_float32(hf: nn.Module) -> Iterator[None]:
    """Inside, every module computes in float32, its weights widened while its forward pass lasts: no second network is held."""
    handles = []
    for module in hf.modules():
        if _narrow(module):
            widened = _Widened()
            handles += [
                module.register_forward_pre_hook(widened.begin),
                module.register_forward_hook(widened.end, always_call=True),
            ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _narrow(module: nn.Module) -> list[Tensor]:
    return [t for t in (*module.parameters(recurse=False), *module.buffers(recurse=False)) if t.dtype in NARROW]


class _Widened:
    """The weights of one module, wide between `begin` and `end`; of one that processes share they are gathered only then."""

    def begin(self, module: nn.Module, given: Any) -> None:
        self._before = [(tensor, tensor.data) for tensor in _narrow(module)]
        for tensor, narrow in self._before:
            tensor.data = narrow.float()

    def end(self, module: nn.Module, given: Any, result: Any) -> None:
        for tensor, narrow in self._before:
            tensor.data = narrow
