"""Divergences of a student from a teacher over a whole vocabulary, for one state after the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evenhand.core import kl

NEVER = -1e4
"""A log-probability below this is that of a token that is never said: exp underflows, and the gradient of a mixture stays
finite."""


def generalised_jsd(log_student: Tensor, log_teacher: Tensor, *, beta: float) -> Tensor:
    """`beta KL(T, M) + (1 - beta) KL(S, M)`, `M = beta T + (1 - beta) S`: GKD (arXiv:2306.13649, eq. 1), over the last axis.

    Both are normalised log-probabilities `[..., V]` -> `[...]`, nats, differentiable in the student's. Between 0 and the
    entropy of (beta, 1 - beta), at most log 2. At its ends it would be 0: there, by the convention of the field, it is KL(T, S)
    at beta = 0 (learn everything that the teacher says) and KL(S, T) at beta = 1 (say nothing that it would not), which are the
    limits of this over beta and over 1 - beta. The size of the loss therefore jumps at the ends. A token that one of them never
    says is harmless in between.

    >>> student, teacher = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    >>> [round(float(generalised_jsd(student, teacher, beta=b)), 3) for b in (0.0, 0.5, 1.0)]
    [0.131, 0.034, 0.144]
    """
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta is a share, got {beta}")
    if beta in (0.0, 1.0):
        return kl.exact(log_teacher, log_student) if beta == 0.0 else kl.exact(log_student, log_teacher)
    student, teacher = (x.clamp(min=NEVER) for x in (log_student, log_teacher))
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * kl.exact(log_teacher, mixture) + (1 - beta) * kl.exact(log_student, mixture)


def token_advantage(logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """`A_t = log T(y_t) - log S(y_t)`, a constant: on-policy distillation (Thinking Machines 2025; arXiv:2601.02780, eq. 8).

    Its mean over the student's own tokens, times their score, is the gradient of -KL(S, T) at each state, prefixes held fixed:
    what a token leads to does not count (discount 0). Used as a *loss*, the same difference has no expected gradient at all.
    """
    return (teacher_logp - logp).detach()


def weighted_early(advantage: Tensor, *, early: float) -> Tensor:
    """`A_t (1 + early (1 - sum_{j<t} |A_j| / sum_j |A_j|))` over the tokens of one answer: IW-OPD (arXiv:2606.22600).

    What is said first decides what is read later. The weight falls from 1 + `early` at the first token towards 1.

    >>> weighted_early(torch.tensor([1.0, -1.0, 2.0]), early=1.0)
    tensor([ 2.0000, -1.7500,  3.0000])
    """
    size = advantage.abs()
    before = (size.cumsum(-1) - size) / size.sum(-1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)
    return advantage * (1 + early * (1 - before))
