"""AdamW with fp32 master weights where parameters are narrower, and learning-rate schedules as pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.errors import UserError, did_you_mean
from evenhand.models.sharding import full
from evenhand.train.weights import learning

Schedule = Callable[[int, int], float]


def constant(step: int, total: int) -> float:
    return 1.0


def linear(step: int, total: int) -> float:
    """Falls linearly from 1 to 0 at `total`."""
    return max(0.0, 1.0 - step / max(1, total))


def cosine(step: int, total: int) -> float:
    """Half a cosine from 1 to 0 at `total`."""
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(1, total))))


def inverse_sqrt(step: int, total: int) -> float:
    """1 / sqrt(step + 1)."""
    return 1.0 / math.sqrt(step + 1)


def step_decay(step: int, total: int, *, factor: float = 0.9, every: int = 1500) -> float:
    """`factor` once more after every `every` steps."""
    return factor ** (step // every)


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant, "linear": linear, "cosine": cosine, "inverse_sqrt": inverse_sqrt, "step": step_decay,
}  # fmt: skip


def schedule(name: str, *, warmup: int, steps: int, **parameters: Any) -> Callable[[int], float]:
    """The factor on the learning rate at step i (from 0): a linear warm-up of `warmup` steps, then the named schedule.

    >>> f = schedule("linear", warmup=2, steps=6)
    >>> [f(i) for i in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if name not in SCHEDULES:
        raise UserError(f"unknown schedule '{name}'", where="schedule", fix=did_you_mean(name, SCHEDULES))
    after = SCHEDULES[name]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return after(step - warmup, steps - warmup, **parameters)

    return factor


class AdamW:
    """torch's AdamW over the trainable parameters; narrower ones get fp32 master weights, so that small updates count."""

    def __init__(
        self, model: nn.Module, *, learning_rate: float, betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        self.named = learning(model)
        self.master = {n: p.detach().float().clone() for n, p in self.named.items() if torch.finfo(p.dtype).bits < 32}
        targets = [self.master.get(n, p) for n, p in self.named.items()]
        self.inner = torch.optim.AdamW(targets, lr=learning_rate, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
        self.learning_rate = learning_rate

    def step(self, factor: float) -> None:
        """One update at `learning_rate * factor`, from the gradients on the model's parameters, which are then cleared."""
        for name, master in self.master.items():
            grad = self.named[name].grad
            master.grad = None if grad is None else grad.float()
        for group in self.inner.param_groups:
            group["lr"] = self.learning_rate * factor
        self.inner.step()
        for name, master in self.master.items():
            self.named[name].data.copy_(master)
            master.grad = None
        for p in self.named.values():
            p.grad = None

    def restart(self) -> None:
        """Forget every moment and take the weights as they are now: as if made anew."""
        self.inner.state.clear()
        for name, master in self.master.items():
            master.copy_(self.named[name].detach())

    def tensors(self) -> dict[str, Tensor]:
        """Everything that must survive a kill, as named tensors."""
        out = {f"master.{n}": t for n, t in self.master.items()}
        for name, target in zip(self.named, self.inner.param_groups[0]["params"], strict=True):
            for key, value in self.inner.state.get(target, {}).items():
                out[f"{key}.{name}"] = value
        return out

    def places(self, names: Collection[str]) -> dict[str, Tensor]:
        """Where the tensors of these names go, as `tensors` named them: to be filled in place."""
        for name, target in zip(self.named, self.inner.param_groups[0]["params"], strict=True):
            if f"step.{name}" in names:
                moments = {key: torch.zeros_like(target) for key in ("exp_avg", "exp_avg_sq")}
                self.inner.state[target] = {"step": torch.zeros((), device=target.device), **moments}
        return self.tensors()


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale gradients to a global norm of at most `limit` (0: never); returns the norm before clipping, on the device."""
    return full(torch.nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], limit if limit > 0 else math.inf))
