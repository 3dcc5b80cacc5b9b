"""The sampler inside the trainer's process: the same weights, no second copy.

How it works, in order: prompts are sorted by length, and the first that fit a memory budget are a wave; it prefills each prompt
once (packed, nothing padded), starts its rows from the shared prompt, and steps all rows together. Rows that ended leave it; once
they leave half of the room, the next wave begins in it, and goes through the network beside the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from evenhand.engines.checks import Renders, check_sampling, prompt_ids
from evenhand.engines.decode_batch import DecodeRow, Sampled, run, stream
from evenhand.engines.rows import asked, completion, grouped
from evenhand.errors import UserError
from evenhand.models.decode import Decoder, decoder_for, not_a_number
from evenhand.models.rope_length import Sides, start_over
from evenhand.types import Group, Prompt, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_ROWS = 512
"""Rows stepped together. More rows use a processor better, until the step is bound by arithmetic; 512 is beyond that on a CPU."""


class HasModel(Protocol):
    hf: PreTrainedModel


class LocalEngine:
    """Samples from `policy.hf` as it is at the moment of the call. See `evenhand.protocols.Engine`.

    The same (sampling.seed, prompt.id, completion index) gives the same tokens, whatever else is sampled beside it. A prompt
    whose id occurs again in one call continues the numbering of its completions instead of repeating them.
    `behaviour_logp` is defined in `evenhand.engines.draw.Draw`.
    """

    def __init__(self, policy: HasModel, renderer: Renders, *, max_rows: int = MAX_ROWS, cache_bytes: int | None = None) -> None:
        """`cache_bytes` bounds keys, values and logits of rows stepped together; None: 2 GB, or a quarter of an accelerator's."""
        self._policy, self._renderer = policy, renderer
        self._max_rows, self._cache_bytes = max_rows, cache_bytes
        self._decoder: Decoder | None = None

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling | Sequence[Sampling],
        *,
        max_prompt: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Group]:
        """One group of `n` completions per prompt, in the given order.

        A sequence of n `Sampling` gives each completion index its own. Prompts longer than `max_prompt` tokens keep their last
        `max_prompt`. `progress(done, total)` counts completions.
        """
        ids, rows = asked(self._renderer, prompts, n, sampling, max_prompt)
        if not prompts:
            return []
        sampled = self.sample(ids, rows, progress=progress)
        return grouped(prompts, n, [completion(self._renderer, s) for s in sampled])

    def sample(
        self, prompts: Sequence[Sequence[int]], rows: Sequence[DecodeRow], *, progress: Callable[[int, int], None] | None = None
    ) -> list[Sampled]:
        """The token level: one `Sampled` per row, in order; row r continues the token ids `prompts[rows[r].prompt]`."""
        stop = sorted(self._renderer.stop_ids)

        def report(ended: int) -> None:
            if progress is not None:
                progress(ended, len(rows))

        with self._ready(prompts, rows) as decoder:
            sampled = run(decoder, prompts, rows, stop, max_rows=self._max_rows, cache_bytes=self._cache_bytes, report=report)
        if not all(math.isfinite(value) for row in sampled for value in row.logp):
            raise not_a_number()
        return sampled

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[int]:
        """The tokens of one answer while they are drawn, the stop token left out: those of `generate([prompt], 1, sampling)`."""
        ids = prompt_ids(self._renderer, prompt, None)
        row = DecodeRow(prompt=0, key=(prompt.id, 0), sampling=sampling)
        with self._ready([ids], [row]) as decoder:
            yield from stream(decoder, ids, row, self._renderer.stop_ids)

    @contextmanager
    def _ready(self, prompts: Sequence[Sequence[int]], rows: Sequence[DecodeRow]) -> Iterator[Decoder]:
        """The decoder, ready for rows that can be sampled."""
        for row in rows:
            check_sampling(row.sampling)
        self._check_window(prompts, rows)
        decoder = self._ready_decoder()
        start_over(decoder.hf)
        with decoder.ready(getattr(self._policy, "matmul_dtype", None), alone=len(rows) == 1):
            yield decoder

    def _ready_decoder(self) -> Decoder:
        if self._decoder is None or self._decoder.hf is not self._policy.hf:
            self._decoder = decoder_for(self._policy.hf)
        return self._decoder

    def _check_window(self, prompts: Sequence[Sequence[int]], rows: Sequence[DecodeRow]) -> None:
        """Every row fits the model's window, and keeps its rotary frequencies while it grows."""
        config = self._policy.hf.config
        sides, limit = Sides(config), getattr(config.get_text_config(), "max_position_embeddings", None)
        for row in sorted(rows, key=lambda r: -(len(prompts[r.prompt]) + r.sampling.max_tokens)):
            length, new = len(prompts[row.prompt]), row.sampling.max_tokens
            if limit is not None and length + new > limit:
                raise UserError(
                    f"a prompt of {length} tokens and {new} new ones do not fit the model's window of {limit}",
                    where=f"prompt {row.key[0]}",
                    fix=f"lower max_tokens, or set max_prompt to {limit - new}"
                    if new < limit
                    else f"lower max_tokens below {limit}",
                )
            sides.refuse_crossing(length, new, where=f"prompt {row.key[0]}")
