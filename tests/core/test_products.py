"""Products by the other library are the same products: values and gradients, transposed views, and what stays with torch."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from evenhand.core import matmul

SHAPES = [((2, 40, 96), (320, 96)), ((80, 256), (64, 256)), ((16, 4096), (64, 4096))]
needs_onednn = pytest.mark.skipif(matmul._onednn() is None, reason="this torch has no oneDNN, or the processor is no x86")


def operands(x, weight):
    draw = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in (x, weight, weight[:1])]
    return [m.float().requires_grad_() for m in made], [m.requires_grad_() for m in made]


@needs_onednn
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_values_and_gradients_are_those_of_double_precision(shapes, biased, monkeypatch):
    (x, w, b), (x64, w64, b64) = operands(*shapes)
    assert matmul.worth_it(x, w)
    with monkeypatch.context() as nowhere:
        nowhere.setattr(torch.nn.functional, "linear", None)  # torch's own must not be called
        y = matmul.linear(x, w, b if biased else None)
    y64 = x64 @ w64.t() + (b64 if biased else 0)
    scale = shapes[1][1] ** 0.5
    assert_close(y.double(), y64, rtol=2e-6, atol=4e-6 * scale)
    pull = torch.linspace(-1, 1, y.numel()).view(y.shape)
    (y * pull).sum().backward()
    (y64 * pull.double()).sum().backward()
    for found, expected in ((x, x64), (w, w64), (b, b64) if biased else (w, w64)):
        assert_close(found.grad.double(), expected.grad, rtol=1e-4, atol=5e-4)


@needs_onednn
@pytest.mark.parametrize(("x_learns", "w_learns"), [(True, False), (False, True), (True, True)])
def test_only_what_a_gradient_needs_is_kept(x_learns, w_learns):
    """A frozen layer keeps no input for a gradient that nobody takes, and an input without gradient no weight."""
    (x, w, b), (x64, w64, _) = operands(*SHAPES[0])
    x.requires_grad_(x_learns), w.requires_grad_(w_learns), b.requires_grad_(False)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        y = matmul.linear(x, w)
    assert kept == [*[x.shape] * w_learns, *[w.shape] * x_learns]
    y.sum().backward()
    (x64 @ w64.t()).sum().backward()
    for found, expected, learns in ((x, x64, x_learns), (w, w64, w_learns)):
        assert (found.grad is not None) == learns
        if learns:
            assert_close(found.grad.double(), expected.grad, rtol=1e-4, atol=5e-4)


@needs_onednn
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("narrow_input", [False, True])
def test_a_frozen_layer_under_autocast_is_torchs_to_the_bit_and_keeps_no_copy_of_its_weight(biased, narrow_input):
    (x, w, b), _ = operands(*SHAPES[0])
    w.requires_grad_(False), b.requires_grad_(False)
    pull = torch.linspace(-1, 1, 2 * 40 * 320).view(2, 40, 320)
    found, kept = {}, []
    for linear in (matmul.linear, torch.nn.functional.linear):
        x.grad = None
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.dtype) or t, lambda t: t)
        given = x.bfloat16() if narrow_input else x
        with torch.autocast("cpu", torch.bfloat16), hooks:
            y = linear(given, w, b if biased else None)
        (y * pull).sum().backward()
        found[linear] = (y.detach(), x.grad)
    ours, torchs = found.values()
    assert ours[0].dtype == torch.bfloat16
    assert all(torch.equal(a, b) for a, b in zip(ours, torchs, strict=True))
    assert kept == [torch.bfloat16], "torch keeps a copy: where it no longer does, this need not exist"


def test_a_product_of_views_is_the_product():
    draw = torch.Generator().manual_seed(1)
    a, b = torch.randn(300, 64, generator=draw), torch.randn(300, 200, generator=draw)
    assert_close(matmul.product(a.t(), b), a.t() @ b, rtol=1e-4, atol=5e-4)
    assert_close(matmul.product(b, b.t()), b @ b.t(), rtol=1e-4, atol=5e-4)


@needs_onednn
def test_the_same_call_gives_the_same_bits():
    (x, w, _), _ = operands(*SHAPES[0])
    first = matmul.linear(x, w).detach()
    assert all(torch.equal(matmul.linear(x, w).detach(), first) for _ in range(5))


@pytest.mark.parametrize("case", ["small", "double", "half", "one row", "switched off"])
def test_everything_else_stays_with_torch(case):
    shape = {"small": ((4, 8), (3, 8)), "one row": ((1, 2048), (2048, 2048))}.get(case, SHAPES[0])
    (x, w, _), (x64, w64, _) = operands(*shape)
    x, w = {"double": (x64, w64), "half": (x.bfloat16(), w.bfloat16())}.get(case, (x, w))
    with torch.backends.mkldnn.flags(enabled=case != "switched off"):
        assert not matmul.worth_it(x, w)
        assert torch.equal(matmul.linear(x, w), torch.nn.functional.linear(x, w))
        assert torch.equal(matmul.product(x.flatten(0, -2), w.t()), x.flatten(0, -2) @ w.t())


def test_autocast_has_its_say():
    (x, w, _), _ = operands(*SHAPES[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert matmul.linear(x, w).dtype == torch.bfloat16


HELD = """
import ctypes, os
import torch
from evenhand.core import matmul

names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
Held = type("Held", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in names.split()]})
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Held
torch.set_num_threads(1)
weight = torch.ones(128, 128)
for rows in range(100, 500):
    matmul.linear(torch.ones(rows, 128), weight)
    if rows in (199, 499):
        print(libc.mallinfo2().uordblks >> 20)
print(*(os.environ[name] for name in matmul.CACHES))
"""


def held(**environment):
    """MiB in use after products of 100 shapes and after 300 more, and the caches' sizes."""
    given = {n: v for n, v in os.environ.items() if n not in matmul.CACHES}
    run = [sys.executable, "-c", HELD]
    said = subprocess.run(run, env=given | environment, capture_output=True, text=True, check=True).stdout.split()
    return int(said[0]), int(said[1]), said[2:]


@needs_onednn
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="another C library, which does not tell")
def test_products_of_ever_other_shapes_take_no_more_memory():
    """Two caches keep what they prepared for every shape, 1,024 each by themselves: bounded unless their sizes are given."""
    before, after, sizes = held()
    assert sizes == ["64", "64"]
    assert after - before < 20
    before, after, sizes = held(ONEDNN_PRIMITIVE_CACHE_CAPACITY="1024", LRU_CACHE_CAPACITY="1024")
    assert sizes == ["1024", "1024"]
    assert after - before > 60
