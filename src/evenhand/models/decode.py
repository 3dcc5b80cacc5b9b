"""Decoding with a causal LM: prefill prompts once, then one token per row and step.

`decoder_for(hf)` picks the first way that a check proves: `SharedPrefixDecoder` (decode_cache.py), `PlainDecoder`
(decode_plain.py: transformers' own cache and attention), `OwnCacheDecoder` and `RereadDecoder` (decode_own_cache.py: the model's
own cache, or none). All have one interface: open a `Session` on some prompts and rows, feed it one token per row, drop rows that
ended.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from evenhand.errors import UserError
from evenhand.models import decode_attention, decode_products
from evenhand.models.decode_cache import SharedPrefixCache, SideBySide
from evenhand.models.decode_own_cache import OwnCacheDecoder, RereadDecoder
from evenhand.models.decode_plain import PlainDecoder
from evenhand.models.evaluation_mode import attention, evaluating, plainly

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest relative difference of logits that the self-check calls equal, per precision. A wrong mask is off by far more.

float64 gets no less than float32: the norms and rotations of most architectures compute in float32 whatever the weights are.
"""
PREFILL_TOKENS = 8192
"""Prompt tokens per prefill forward: bounds its activations; more does not go faster."""


class Session(Protocol):
    """R rows that continue P prompts in lock step. `logits` [P, V]: next-token logits at the end of each prompt."""

    logits: Tensor

    def step(self, tokens: Tensor) -> Tensor:
        """Feeds one token per row [R]; returns the next-token logits [R, V]."""
        ...

    def compact(self, alive: Tensor) -> Tensor:
        """Drops the rows where `alive` [R] is False; returns `decode_maps.fill_holes(alive)`: new row i was row `order[i]`."""
        ...


class Decoder(Protocol):
    """Opens sessions on one model. `open` and everything after it must run inside `ready()`."""

    hf: PreTrainedModel

    def ready(self, matmul_dtype: torch.dtype | None = None, *, alone: bool = False) -> AbstractContextManager[None]:
        """A context: evaluation mode, no gradients, this decoder's attention, products in `matmul_dtype` (None: that of the
        weights); `alone` where sessions have a single row. Restores what it changed."""
        ...

    def open(self, prompts: Sequence[Sequence[int]], owner: Sequence[int]) -> Session:
        """Prefills `prompts` (token ids, each at least one) and starts rows; row r continues `prompts[owner[r]]`."""
        ...


class SharedPrefixDecoder:
    """Packed prefill, no padding; one K and V per prompt, shared by its rows."""

    def __init__(self, hf: PreTrainedModel) -> None:
        decode_attention.register()
        self.hf = hf
        self._dtype: torch.dtype | None = None

    @contextmanager
    def ready(self, matmul_dtype: torch.dtype | None = None, *, alone: bool = False) -> Iterator[None]:
        self._dtype = matmul_dtype
        with plainly(self.hf):
            decode_products.look(self.hf)
        with (
            evaluating(self.hf),
            attention(self.hf, decode_attention.NAME),
            torch.inference_mode(),
            decode_products.prepared(self.hf, matmul_dtype, alone=alone),
        ):
            yield

    def open(self, prompts: Sequence[Sequence[int]], owner: Sequence[int]) -> SharedPrefixSession:
        return SharedPrefixSession(self.hf, prompts, owner, dtype=self._dtype)


class SharedPrefixSession:
    """See `Session`."""

    def __init__(
        self, hf: PreTrainedModel, prompts: Sequence[Sequence[int]], owner: Sequence[int], *, dtype: torch.dtype | None = None
    ) -> None:
        self._hf, self._device = hf, hf.device
        self.cache = SharedPrefixCache([len(p) for p in prompts], hf.device, dtype=dtype)
        self.logits = torch.cat([self._prefill(prompts, first, last) for first, last in _chunks(prompts)])
        self.cache.begin(torch.tensor(owner, device=hf.device))

    def _prefill(self, prompts: Sequence[Sequence[int]], first: int, last: int) -> Tensor:
        chunk = prompts[first:last]
        ids = torch.tensor([t for p in chunk for t in p], device=self._device)
        positions = torch.cat([torch.arange(len(p)) for p in chunk]).to(self._device)
        ends = torch.tensor([len(p) for p in chunk]).cumsum(0).sub_(1).to(self._device)
        with self.cache.prefilling(first, last - first):
            return self.forward(ids, positions, ends)

    def step(self, tokens: Tensor) -> Tensor:
        positions = self.cache.positions
        with self.cache.stepping():
            return self.forward(tokens, positions, 0)

    def compact(self, alive: Tensor) -> Tensor:
        return self.cache.compact(alive)

    def forward(self, ids: Tensor, positions: Tensor, keep: Tensor | int) -> Tensor:
        """The model over one flat sequence [1, T]; logits only where `keep` says (0: everywhere)."""
        return self._hf(input_ids=ids[None], position_ids=positions[None], use_cache=False, logits_to_keep=keep).logits[0]


def steps_together(decoder: Decoder) -> bool:
    """Whether several sessions of the decoder share the products of a step."""
    return isinstance(decoder, SharedPrefixDecoder)


def step_together(sessions: Sequence[Session], tokens: Sequence[Tensor]) -> list[Tensor]:
    """`Session.step` of each with its `tokens`; sessions on shared prefixes go through the network as one."""
    shared = [session for session in sessions if isinstance(session, SharedPrefixSession)]
    if len(sessions) < 2 or len(shared) < len(sessions):
        return [session.step(its) for session, its in zip(sessions, tokens, strict=True)]
    beside = SideBySide([session.cache for session in shared])
    positions = beside.positions
    with beside.stepping():
        logits = shared[0].forward(torch.cat(list(tokens)), positions, 0)
    return list(logits.split(beside.rows))


def held_bytes(sessions: Sequence[Session]) -> int:
    """What the sessions' keys and values take, room to grow included; 0 for those that do not say."""
    return sum(session.cache.held_bytes for session in sessions if isinstance(session, SharedPrefixSession))


def _chunks(prompts: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of prompts of at most PREFILL_TOKENS padded tokens (at least one prompt each)."""
    first, longest = 0, 0
    for i, prompt in enumerate(prompts):
        longest = max(longest, len(prompt))
        if i > first and longest * (i + 1 - first) > PREFILL_TOKENS:
            yield first, i
            first, longest = i, len(prompt)
    yield first, len(prompts)


WAYS: dict[Callable[[PreTrainedModel], Decoder], str] = {
    SharedPrefixDecoder: "",
    PlainDecoder: "uses transformers' own cache (correct but slower)",
    OwnCacheDecoder: "uses the model's own cache, prompts of one length together (correct but slower)",
    RereadDecoder: "reads every row again from its start at each token (correct, slow for long answers)",
}
"""Decoders in the order they are tried, and what is said when it comes to one."""
_CHOSEN: WeakKeyDictionary[PreTrainedModel, Callable[[PreTrainedModel], Decoder]] = WeakKeyDictionary()


def decoder_for(hf: PreTrainedModel) -> Decoder:
    """The fastest decoder that reproduces this model's plain forward pass; says once when that is the plain one.

    Checked once per model object. Raises UserError when no decoder does.
    """
    if hf not in _CHOSEN:
        _CHOSEN[hf] = _choose(hf)
    return _CHOSEN[hf](hf)


def _choose(hf: PreTrainedModel) -> Callable[[PreTrainedModel], Decoder]:
    problem = None
    for kind, how in WAYS.items():
        before, problem = problem, problem_with(kind(hf))
        if problem is None:
            if before is not None:
                log.warning("%s: sampling %s: %s", type(hf).__name__, how, before)
            return kind
    raise UserError(
        f"{type(hf).__name__} cannot be sampled",
        where="model",
        why=problem or "",
        fix="use another architecture, for example one of llama, qwen2, gemma2, gpt_neox",
    )


def not_a_number() -> UserError:
    """The error for weights that have diverged, or that overflow in their precision from the start."""
    return UserError(
        "the model's output is not a number",
        where="sampling",
        why="its weights have diverged in training, or, at the start, overflow in their precision (float16 above 65504)",
        fix="lower the learning rate or start from an earlier checkpoint; at the start, set `model.dtype` to bfloat16 or float32",
    )


def problem_with(decoder: Decoder) -> str | None:
    """Why `decoder` does not reproduce its model's plain forward pass, or None when it does."""
    hf = decoder.hf
    try:
        if isinstance(decoder, SharedPrefixDecoder):
            with plainly(hf):
                problem = decode_attention.problem_with(hf)
            if problem is not None:
                return problem
        error = relative_error(decoder)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as failure:  # a model may fail in any of these ways
        return f"its forward pass fails in steps ({type(failure).__name__}: {failure})"
    allowed = TOLERANCE.get(hf.dtype, TOLERANCE[torch.bfloat16])
    return None if error <= allowed else f"logits of single steps are off by {error:.1e} of their size (allowed {allowed:.0e})"


def relative_error(decoder: Decoder) -> float:
    """Norm of the difference of centred logits, single steps against plain forward passes on random tokens, over their norm."""
    vocabulary = cast(torch.nn.Embedding, decoder.hf.get_input_embeddings()).num_embeddings
    pad = getattr(decoder.hf.config.get_text_config(), "pad_token_id", None)
    draw = torch.Generator().manual_seed(0)
    prompts = [torch.randint(vocabulary, (n,), generator=draw).tolist() for n in (19, 4)]
    tokens = torch.randint(vocabulary, (3, 7), generator=draw)
    tokens[:, 1] = pad if isinstance(pad, int) and 0 <= pad < vocabulary else 0  # a token like others: an answer may end with it
    shared, single = [0, 0, 1], [0, 1]  # rows per prompt decide how keys are kept
    sums = torch.stack([_errors(decoder, prompts, owner, tokens[: len(owner)]) for owner in (shared, single)])
    difference, size = sums.sum(0).tolist()
    if not math.isfinite(size):
        raise not_a_number()
    return (difference / max(size, 1e-30)) ** 0.5


def _errors(decoder: Decoder, prompts: Sequence[Sequence[int]], owner: Sequence[int], tokens: Tensor) -> Tensor:
    """Squared norms of the difference and of what is expected [2]; row 1 is dropped half-way. tokens [R, steps] are fed."""
    device, rows = decoder.hf.device, torch.arange(len(owner))
    with decoder.ready():
        session = decoder.open(prompts, owner)
        got = {(r, 0): session.logits[p] for r, p in enumerate(owner)}
        for t in range(tokens.shape[1]):
            if t == 2:
                rows = rows[session.compact((rows != 1).to(device)).cpu()]
            logits = session.step(tokens[rows, t].to(device))
            got |= {(r, t + 1): row for r, row in zip(rows.tolist(), logits, strict=True)}
    with plainly(decoder.hf):
        sequences = [torch.tensor([[*prompts[p], *tokens[r].tolist()]], device=device) for r, p in enumerate(owner)]
        whole = [decoder.hf(input_ids=ids, use_cache=False).logits[0] for ids in sequences]
    ends = [len(prompts[p]) - 1 for p in owner]
    expected = _centred(torch.stack([whole[r][ends[r] + t] for r, t in got]))
    return torch.stack([(_centred(torch.stack(list(got.values()))) - expected).square().sum(), expected.square().sum()])


def _centred(logits: Tensor) -> Tensor:
    return logits.double() - logits.double().mean(-1, keepdim=True)
