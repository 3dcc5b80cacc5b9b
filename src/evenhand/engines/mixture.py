"""Samples from a geometric mixture of two models, token by token, in the trainer's process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from typing_extensions import override

from evenhand.engines.checks import Renders
from evenhand.engines.local import HasModel, LocalEngine
from evenhand.models.decode import Decoder, Session, decoder_for


class MixtureEngine(LocalEngine):
    """Samples from `policy^(1 - share) other^share`, normalised at every token (Nash-MD's opponent, arXiv:2312.00886).

    Both models read one vocabulary. `behaviour_logp` is the mixture's. See `LocalEngine`.
    """

    def __init__(self, policy: HasModel, other: HasModel, renderer: Renders, *, share: float) -> None:
        super().__init__(policy, renderer)
        self._other, self._share = other, share

    @override
    def _ready_decoder(self) -> Decoder:
        return _MixtureDecoder(super()._ready_decoder(), decoder_for(self._other.hf), self._share)


class _MixtureDecoder:
    """See `evenhand.models.decode.Decoder`."""

    def __init__(self, first: Decoder, second: Decoder, share: float) -> None:
        self.first, self.second, self.share = first, second, share
        self.hf = first.hf

    @contextmanager
    def ready(self, matmul_dtype: torch.dtype | None = None, *, alone: bool = False) -> Iterator[None]:
        with self.first.ready(matmul_dtype, alone=alone), self.second.ready(matmul_dtype, alone=alone):
            yield

    def open(self, prompts: Sequence[Sequence[int]], owner: Sequence[int]) -> Session:
        return _MixtureSession(self.first.open(prompts, owner), self.second.open(prompts, owner), self.share)


class _MixtureSession:
    """See `evenhand.models.decode.Session`. A weighted sum of logits is the logits of the normalised product."""

    def __init__(self, first: Session, second: Session, share: float) -> None:
        self._first, self._second, self._share = first, second, share
        self.logits = self._mixed(first.logits, second.logits)

    def step(self, tokens: Tensor) -> Tensor:
        return self._mixed(self._first.step(tokens), self._second.step(tokens))

    def compact(self, alive: Tensor) -> Tensor:
        self._second.compact(alive)  # every decoder leaves the rows in the same order
        return self._first.compact(alive)

    def _mixed(self, first: Tensor, second: Tensor) -> Tensor:
        return (1 - self._share) * first.float() + self._share * second.float()
