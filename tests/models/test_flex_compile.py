"""The kernel for accelerators is traced once per kind of call, not once per batch. Tracing needs no accelerator."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import flex_attention as module

from evenhand.models import tree_attention_flex
from evenhand.types import Layout, Span


def layout(prompt: int, *completions: int) -> Layout:
    """One group."""
    spans, at = [], prompt
    for length in completions:
        spans.append(Span(at, length))
        at += length
    return Layout((Span(0, prompt),), tuple(spans), (0,) * len(spans))


@pytest.fixture
def traces(monkeypatch):
    """Graphs traced so far, of a kernel that is traced but then run as it is."""
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    kernel = tree_attention_flex.compiled(backend=backend)
    monkeypatch.setattr(tree_attention_flex, "_kernel", lambda _device: kernel)
    monkeypatch.setattr(module, "_validate_device", lambda *_: None)  # it refuses gradients on a processor
    yield graphs
    torch._dynamo.reset()


def attend(shape: Layout, *, grad: bool = True, window: int | None = None, softcap: float | None = None) -> torch.Tensor:
    total = shape.total
    q, k, v = (torch.randn(1, heads, total, 16, requires_grad=grad) for heads in (4, 2, 2))
    tree = tree_attention_flex.FlexTree(shape, torch.arange(total))
    return tree.attend(q, k, v, scale=None, window=window, softcap=softcap)


def test_layouts_share_one_trace(traces):
    for shape in (layout(200, 70, 90), layout(301, 5, 8, 200), layout(130, 40)):
        attend(shape)
    assert len(traces) == 1


def test_soft_caps_and_windows_of_any_size_share_a_trace(traces):
    shape = layout(200, 70, 90)
    for softcap in (30.0, 50.0):
        attend(shape, softcap=softcap)
    assert len(traces) == 1
    for window in (32, 64):
        attend(shape, window=window)
    assert len(traces) == 2


@pytest.mark.slow
def test_more_kinds_of_calls_than_the_compiler_allows_by_default(traces):
    kinds = [
        (g, w, c, s) for g in (True, False) for w in (None, 64) for c in (None, 30.0) for s in (layout(200, 70), layout(9, 4))
    ]
    for grad, window, softcap, shape in kinds:
        attend(shape, grad=grad, window=window, softcap=softcap)
    seen = len(traces)
    assert seen > 8
    for grad, window, softcap, shape in kinds:
        attend(shape, grad=grad, window=window, softcap=softcap)
    assert len(traces) == seen
