"""Distilling methods go where their teacher is, on the tree of listed answers, through the real source, loop and objectives."""

from __future__ import annotations

import pytest
import torch

from evenhand import methods
from evenhand.errors import UserError
from evenhand.methods import Method
from evenhand.train import loop
from evenhand.train.examples import micro_batches
from tests.battery.test_bandit import ANSWERS, REWARD, start
from tests.battery.tree import Table, fit_online
from tests.battery.world import gradients, items_for, network


def teacher() -> Table:
    """Sure of other answers than the start."""
    return Table(ANSWERS, torch.linspace(-1.0, 0.8, len(start().logits), dtype=torch.float64))


def built(name: str, **parameters) -> Method:
    return methods.build(name, parameters, steps=150, max_tokens=8)


@pytest.mark.parametrize(
    ("name", "parameters", "tolerance"),
    [
        ("gkd", {"on_policy": 1.0, "beta": 0.5}, 2e-3), ("gkd", {"on_policy": 1.0, "beta": 0.0}, 2e-3),
        ("gkd", {"on_policy": 0.5, "beta": 0.1}, 2e-3), ("gkd", {"on_policy": 0.0, "beta": 1.0}, 2e-3),
        ("exact_distillation", {}, 2e-3), ("on_policy_distillation", {"completions_per_prompt": 32}, 2e-2),
        ("on_policy_distillation", {"completions_per_prompt": 32, "updates": 2}, 2e-2),
    ],
)  # fmt: skip
def test_the_student_becomes_its_teacher(name, parameters, tolerance):
    """No reward is asked for. The data's own answers reach every state of the tree, so that they teach as much as samples."""
    method = built(name, **parameters)
    assert not method.rewarded
    found = fit_online(method, REWARD, start(), prompts=4, steps=150, rate=0.1, teacher=teacher(), answers=ANSWERS)
    known = teacher().distribution().detach()
    torch.testing.assert_close(found.distribution().detach(), known, rtol=0, atol=tolerance)
    assert (start().distribution() - known).abs().max() > 0.5, "it must have had somewhere to go"


def test_exact_distillation_is_gkd_on_its_own_answers():
    """The same objective, compared by the same divergence."""
    exact, gkd = built("exact_distillation"), built("gkd", on_policy=1.0, beta=1.0)
    assert exact.objective == gkd.objective
    assert (exact.divergence, exact.reference) == (gkd.divergence, gkd.reference) == (1.0, "teacher")
    items = items_for(exact)
    one, other = (gradients(m, micro_batches(items, 1000)) for m in (exact, gkd))
    torch.testing.assert_close(one[1], other[1])


def test_at_the_teacher_there_is_no_loss_and_no_gradient():
    items = items_for(built("gkd"))
    method = built("gkd")
    model = network(method)
    model.compared_to(network(built("sft")), method.measure)  # its own weights
    loss, _ = loop.accumulate(model, method.objective, micro_batches(items, 1000))
    assert float(loss) == pytest.approx(0.0, abs=1e-12)
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) < 1e-7


def test_shares_out_of_range_are_refused():
    for parameters in ({"beta": 1.5}, {"on_policy": -0.1}):
        with pytest.raises(UserError, match="shares"):
            built("gkd", **parameters)
