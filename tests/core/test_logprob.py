"""The fused op against log_softmax on full logits: values, gradients, extremes, and what it keeps in memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from evenhand.core.logprob import completion_logp, completion_logp_entropy

M, H, V = 13, 8, 31
HEADS = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "scale": {"scale": 0.25, "temperature": 1.3},
    "cap": {"softcap": 2.0},
    "cap, scale and temperature": {"softcap": 1.5, "scale": 3.0, "temperature": 0.6},
}
CUTS = {"carried": {}, "recomputed": {"carry_bytes": 0}, "chunks of 5": {"carry_bytes": 0, "chunk": 5}, "half carried": None}


def cut(name, dtype):
    """`half carried`: a budget for 6 rows, in chunks of 4."""
    return {"carry_bytes": 6 * V * dtype.itemsize, "chunk": 4} if CUTS[name] is None else CUTS[name]


def operands(dtype=torch.float64, *, spread=1.0):
    generator = torch.Generator().manual_seed(1)
    hidden = (torch.randn(M, H, generator=generator, dtype=torch.float64) * spread).to(dtype).requires_grad_()
    weight = torch.randn(V, H, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    bias = torch.randn(V, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return hidden, weight, bias, torch.randint(0, V, (M,), generator=generator)


def reference(hidden, weight, bias, ids, *, temperature=1.0, softcap=None, scale=1.0):
    logits = scale * (hidden @ weight.T + bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logp = torch.log_softmax(logits / temperature, dim=-1)
    return logp[torch.arange(len(ids)), ids], -(logp.exp() * logp).sum(-1)


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_values_and_gradients_equal_log_softmax(head, how):
    hidden, weight, bias, ids = operands()
    pull = torch.linspace(-1, 2, M, dtype=torch.float64)
    expected, _ = reference(hidden, weight, bias, ids, **head)
    wanted = torch.autograd.grad((expected * pull).sum(), (hidden, weight, bias))
    logp = completion_logp(hidden, weight, ids, bias=bias, **head, **cut(how, torch.float64))
    found = torch.autograd.grad((logp * pull).sum(), (hidden, weight, bias))
    assert_close(logp, expected, rtol=0, atol=1e-12)
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("pulls", [(1.0, 0.0), (0.0, 1.0), (0.7, -0.4)], ids=["logp", "entropy", "both"])
def test_entropy_and_its_gradient(head, how, pulls):
    hidden, weight, bias, ids = operands()
    a = torch.linspace(-1, 2, M, dtype=torch.float64) * pulls[0]
    b = torch.linspace(1, -0.5, M, dtype=torch.float64) * pulls[1]
    logp, entropy = reference(hidden, weight, bias, ids, **head)
    wanted = torch.autograd.grad((logp * a + entropy * b).sum(), (hidden, weight, bias))
    found_logp, found_entropy = completion_logp_entropy(hidden, weight, ids, bias=bias, **head, **cut(how, torch.float64))
    assert_close(found_logp, logp, rtol=0, atol=1e-12)
    assert_close(found_entropy, entropy, rtol=0, atol=1e-12)
    # A loss that uses only one of the two leaves the other without a gradient.
    loss = sum((x * w).sum() for x, w, pull in ((found_logp, a, pulls[0]), (found_entropy, b, pulls[1])) if pull)
    for x, y in zip(torch.autograd.grad(loss, (hidden, weight, bias)), wanted, strict=True):
        assert_close(x, y, rtol=0, atol=1e-11)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("carry_bytes", [0, 1 << 20])
def test_gradcheck(softcap, carry_bytes):
    hidden, weight, bias, ids = operands()
    hidden, ids = hidden[:4].detach().requires_grad_(), ids[:4]

    def both(h, w, b):
        return completion_logp_entropy(h, w, ids, bias=b, temperature=0.8, softcap=softcap, scale=1.7, carry_bytes=carry_bytes)

    assert torch.autograd.gradcheck(both, (hidden, weight, bias))


@pytest.mark.parametrize("frozen", ["hidden", "weight", "bias"])
def test_what_needs_no_gradient_gets_none(frozen):
    named = dict(zip(("hidden", "weight", "bias"), operands()[:3], strict=True))
    ids = operands()[3]
    whole = completion_logp(named["hidden"], named["weight"], ids, bias=named["bias"])
    wanted = dict(zip(named, torch.autograd.grad(whole.sum(), named.values()), strict=True))
    named[frozen] = named[frozen].detach()
    completion_logp(named["hidden"], named["weight"], ids, bias=named["bias"]).sum().backward()
    for name, tensor in named.items():
        assert (tensor.grad is None) == (name == frozen)
        if name != frozen:
            assert_close(tensor.grad, wanted[name])


def test_without_bias():
    hidden, weight, _, ids = operands()
    expected, _ = reference(hidden, weight, torch.zeros(V, dtype=torch.float64), ids, temperature=0.5)
    assert_close(completion_logp(hidden, weight, ids, temperature=0.5), expected)


def test_no_rows():
    hidden, weight, bias, _ = operands()
    logp = completion_logp(hidden[:0], weight, torch.zeros(0, dtype=torch.long), bias=bias)
    assert logp.shape == (0,)
    logp.sum().backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_single_and_half_precision_stay_near_double(dtype):
    exact = operands()
    expected, entropy = reference(*exact)
    wanted = torch.autograd.grad(expected.sum(), exact[:3])
    rough = operands(dtype)
    logp, found_entropy = completion_logp_entropy(rough[0], rough[1], rough[3], bias=rough[2])
    assert logp.dtype == found_entropy.dtype == torch.float32
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    assert_close(logp.double(), expected, rtol=0, atol=tolerance)
    assert_close(found_entropy.double(), entropy, rtol=0, atol=tolerance)
    for a, b, leaf in zip(torch.autograd.grad(logp.sum(), rough[:3]), wanted, rough[:3], strict=True):
        assert a.dtype == leaf.dtype
        assert float((a.double() - b).norm() / b.norm()) < tolerance / 2


@pytest.mark.parametrize("carry_bytes", [0, 1 << 20])
def test_products_in_half_precision_sum_in_single(carry_bytes):
    """With bf16 products, the one error is that of the products: a fp32 head of bf16-rounded operands gives almost the same."""
    hidden, weight, bias, ids = operands(torch.float32)
    pull = torch.linspace(-1, 2, M)
    logp = completion_logp(hidden, weight, ids, bias=bias, matmul_dtype=torch.bfloat16, carry_bytes=carry_bytes)
    found = torch.autograd.grad((logp * pull).sum(), (hidden, weight, bias))
    expected, _ = reference(hidden, weight, bias, ids)
    wanted = torch.autograd.grad((expected * pull).sum(), (hidden, weight, bias))
    assert_close(logp, expected, rtol=0, atol=0.1)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float32
        assert float((a - b).norm() / b.norm()) < 0.05


@pytest.mark.parametrize("carry_bytes", [0, 1 << 20])
def test_extreme_logits_stay_finite(carry_bytes):
    """Logits of +-1000: the sure token has log-prob 0, the impossible one -2000, and no gradient is nan."""
    hidden = torch.tensor([[1.0], [1.0], [1.0]], requires_grad=True)
    weight = torch.tensor([[1000.0], [-1000.0], [0.0]], requires_grad=True)
    logp, entropy = completion_logp_entropy(hidden, weight, torch.tensor([0, 1, 2]), carry_bytes=carry_bytes)
    assert logp.tolist() == [0.0, -2000.0, -1000.0]
    assert entropy.tolist() == [0.0, 0.0, 0.0]
    (logp.sum() + entropy.sum()).backward()
    # d logp / d weight: onehot - p, times the hidden state; p is (1, 0, 0) in every row.
    assert weight.grad[:, 0].tolist() == [-2.0, 1.0, 1.0]
    assert hidden.grad[:, 0].tolist() == [0.0, -2000.0, -1000.0]


def test_a_uniform_head_is_uniform():
    logp, entropy = completion_logp_entropy(torch.zeros(3, H), torch.ones(V, H), torch.tensor([0, 5, 30]))
    assert_close(logp, torch.full((3,), -math.log(V)))
    assert_close(entropy, torch.full((3,), math.log(V)))


def test_temperature_must_be_positive():
    hidden, weight, _, ids = operands()
    with pytest.raises(ValueError, match="positive"):
        completion_logp(hidden, weight, ids, temperature=0.0)


def saved_elements(**named):
    """Sizes of what autograd keeps between forward and backward."""
    sizes = []
    hidden, weight, _, ids = operands(torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        completion_logp(hidden, weight, ids, **named)
    return sizes


def test_carrying_stops_at_its_budget():
    assert max(saved_elements(carry_bytes=0)) == V * H
    assert M * V in saved_elements()
    assert 6 * V in saved_elements(carry_bytes=6 * V * 4 + 3)


class Largest(TorchDispatchMode):
    """The most elements in one storage made while it is active."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


@pytest.mark.parametrize("differentiable", [True, False])
def test_logits_of_all_rows_never_exist_at_once(differentiable):
    """The largest tensor made, forward and backward, is a chunk of logits; without a gradient nothing is carried."""
    rows, width, vocabulary, chunk = 96, 4, 512, 8
    hidden, weight = (torch.randn(n, width, requires_grad=differentiable) for n in (rows, vocabulary))
    ids = torch.randint(0, vocabulary, (rows,))
    with Largest() as largest:
        logp = completion_logp(hidden, weight, ids, chunk=chunk, carry_bytes=0 if differentiable else None)
        if differentiable:
            logp.sum().backward()
    assert chunk * vocabulary <= largest.elements < rows * vocabulary / 4


@pytest.mark.parametrize("carry_bytes", [0, 1 << 20])
def test_a_graph_can_be_walked_twice(carry_bytes):
    hidden, weight, bias, ids = operands()
    logp, entropy = completion_logp_entropy(hidden, weight, ids, bias=bias, carry_bytes=carry_bytes)
    for loss in (logp.sum(), (logp + entropy).sum()):
        first, second = (torch.autograd.grad(loss, (hidden, weight, bias), retain_graph=True) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_an_enclosing_autocast_has_no_say():
    hidden, weight, bias, ids = operands(torch.float32)
    plain = completion_logp(hidden, weight, ids, bias=bias)
    with torch.autocast("cpu", torch.bfloat16):
        inside = completion_logp(hidden, weight, ids, bias=bias)
    assert torch.equal(plain, inside)
