"""Every registered method enters these by being registered: how a step is cut, ordered or spread changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from evenhand import methods
from evenhand.objectives import from_json, to_json
from evenhand.train import loop
from evenhand.train.examples import assemble, micro_batches
from evenhand.types import Need
from tests.battery import variants
from tests.battery.world import gradients, items_for, network, same

METHODS = {name: variants.build(name, steps=6, max_tokens=8) for name in (*methods.METHODS, *variants.VARIANTS)}


@pytest.fixture(params=variants.lanes(sorted(METHODS)))
def method(request):
    return METHODS[request.param]


def test_needs_are_provided(method):
    assert method.objective.needs <= method.provides


def test_objective_survives_json(method):
    through_text = json.loads(json.dumps(to_json(method.objective)))
    assert from_json(through_text) == method.objective


def test_packing_changes_nothing(method):
    """One group per flat sequence, and even one completion per flat sequence, give what the packed tree gives."""
    items = items_for(method)
    whole = gradients(method, micro_batches(items, 10_000))
    same(gradients(method, [assemble([i]) for i in items]), whole)
    if not any(i.pairs for i in items):
        same(gradients(method, [assemble([i.only([n])]) for i in items for n in range(len(i.tokens.completions))]), whole)


def test_dtype_is_kept(method):
    """A float64 network gets a float64 loss and gradient, computed in float64: the fp32 network's differ, but little."""
    batches = micro_batches(items_for(method), 10_000)
    double, single = gradients(method, batches), gradients(method, batches, dtype=torch.float32)
    assert double[1].dtype == torch.float64
    assert single[0].dtype == single[1].dtype == torch.float32
    torch.testing.assert_close(single[0].double(), double[0].double(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(single[1].double(), double[1], rtol=1e-2, atol=2e-4)
    if method.network != "reward":  # whose score is read in fp32
        assert double[0].dtype == torch.float64


def test_micro_batches_change_nothing(method):
    items = items_for(method)
    whole = gradients(method, micro_batches(items, 10_000))
    assert whole[1].abs().max() > 1e-6, "a test of a zero gradient proves nothing"
    for budget in (1, 20):
        batches = micro_batches(items, budget)
        assert len(batches) >= 2
        same(gradients(method, batches), whole)


def test_row_order_changes_nothing(method):
    items = items_for(method)
    same(gradients(method, micro_batches(items[::-1], 10_000)), gradients(method, micro_batches(items, 10_000)))


def test_ranks_change_nothing(method):
    """Two ranks: each accumulates its half over the step's denominators; the sum of gradients is the whole's."""
    items = items_for(method)
    batches = micro_batches(items, 20)
    whole = gradients(method, batches)
    if Need.STATISTICS in method.objective.needs:
        with torch.no_grad():
            batches = loop.with_statistics(network(method), method.objective, batches, 1.0)
    totals = loop.denominators(method.objective, batches)
    parts = []
    for rank in (0, 1):
        model = network(method)
        for batch in batches[rank::2]:
            if not batch.denominator_only:
                terms = method.objective(model(batch, method.objective.reads), batch)
                loop.weighted_loss(terms, totals).backward()
        parts.append(
            torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()])
        )
    torch.testing.assert_close(parts[0] + parts[1], whole[1], rtol=1e-5, atol=1e-7)


def test_uncounted_tokens_have_no_gradient(method):
    """Differentiate by the model's outputs themselves: exactly zero at padding and at masked tokens."""
    batches = micro_batches(items_for(method), 10_000)
    model = network(method)
    if Need.STATISTICS in method.objective.needs:
        with torch.no_grad():
            batches = loop.with_statistics(model, method.objective, batches, 1.0)
    totals = loop.denominators(method.objective, batches)
    live = next(b for b in batches if not b.denominator_only)
    with torch.no_grad():
        out = model(live, method.objective.reads)
    if out.logp is None:
        pytest.skip("reads a score, not tokens")
    noisy = out.logp + torch.where(live.completion_mask, 0.0, 3.0)  # even if the model put something there
    leaf = noisy.detach().requires_grad_()
    loop.weighted_loss(method.objective(replace(out, logp=leaf), live), totals).backward()
    assert (leaf.grad[~live.completion_mask] == 0).all()
    assert leaf.grad.abs().sum() > 0


LEVELS = (-1e4, -800.0, -1e-7, 0.0)


def test_finite_at_extreme_log_probs(method):
    batches, model = micro_batches(items_for(method), 10_000), network(method)
    with torch.no_grad():
        read = [model(b, method.objective.reads) for b in batches]
    for level in LEVELS:
        loss, gradient = at_level(method, batches, read, level)
        assert torch.isfinite(loss), level
        assert torch.isfinite(gradient).all(), level


def at_level(method, batches, read, level):
    """Loss and gradient of the first batch where every log-prob (or score, or KL) of the outputs `read` is `level`."""
    index = next(i for i, b in enumerate(batches) if not b.denominator_only)
    live, out = batches[index], read[index]
    if out.logp is None:
        name = next(n for n in ("score", "scores", "kl") if getattr(out, n) is not None)
        leaf = torch.full_like(getattr(out, name), level).float().requires_grad_()
        extreme = replace(out, **{name: leaf})
    else:
        leaf = torch.where(live.completion_mask, level, 0.0).float().requires_grad_()
        extreme = replace(out, logp=leaf, value=None if out.value is None else out.value.float())  # the KL is its own test
    if Need.STATISTICS in method.objective.needs:
        with torch.no_grad():
            outs = [replace(o, logp=torch.full(b.completion_mask.shape, level)) for o, b in zip(read, batches, strict=True)]
            batches = method.objective.prepare(batches, outs)
        live = batches[index]
    loss = loop.weighted_loss(method.objective(extreme, live), loop.denominators(method.objective, batches))
    loss.backward()
    return loss, leaf.grad
