"""Two ways to an optimum in float64: descent on a loss, and a fixed point of policy-gradient steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STATIONARY = 1e-9
"""Largest gradient entry at which an optimum counts as found."""
SETTLED = 1e-13
"""Largest gradient entry that is mere rounding: no step can improve on it."""


def minimise(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The minimum of a smooth `loss(x)` [] near `start`: L-BFGS finds the basin, Newton the last digits.

    Newton steps are the shortest ones (least squares), so flat directions, such as a common shift of logits, stay untouched.
    Raises ArithmeticError where no stationary point was reached, for example because the optimum lies at infinity.
    """
    x = start.detach().clone().requires_grad_()
    search = torch.optim.LBFGS([x], max_iter=1000, tolerance_grad=1e-6, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def evaluate() -> Tensor:
        search.zero_grad()
        value = loss(x)
        value.backward()
        return value

    search.step(evaluate)
    found, gradient = x.detach(), _gradient(loss, x)
    for _ in range(8):
        if gradient.abs().max() < SETTLED:
            break
        found, gradient = _newton(loss, found, gradient)
    remaining = gradient.abs().max().item()
    if not remaining < STATIONARY:
        raise ArithmeticError(f"no stationary point: the largest gradient entry is still {remaining:.1e}")
    return found


def climb(surrogate: Callable[[Tensor], Tensor], start: Tensor, *, step: float, rounds: int) -> Tensor:
    """Policy-gradient steps on a categorical policy; returns its log-probabilities [K].

    `surrogate(logp)` [] is the *expected* loss of one round, its samples enumerated and held constant; only its gradient
    counts. The step follows the natural gradient (divided by the probabilities, the inverse Fisher matrix of a softmax up to a
    common shift), so unlikely answers move as fast as likely ones and no round is wasted near a corner.
    """
    logits = start.detach().clone()
    for _ in range(rounds):
        logits = (logits - step * _gradient(lambda x: surrogate(x.log_softmax(-1)), logits) / logits.softmax(-1)).log_softmax(-1)
    return logits


def _gradient(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(x), x)[0]


def _newton(loss: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """One step, kept only if it makes the gradient smaller; returns the point and its gradient."""
    hessian = torch.autograd.functional.hessian(loss, x, vectorize=True).reshape(x.numel(), x.numel())
    step = torch.linalg.pinv(hessian, rtol=1e-9, hermitian=True) @ gradient.flatten()
    closer = x - step.reshape(x.shape)
    slope = _gradient(loss, closer)
    return (closer, slope) if slope.norm() < gradient.norm() else (x, gradient)
