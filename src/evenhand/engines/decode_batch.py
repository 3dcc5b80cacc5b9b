"""A wave: prompts prefilled together and rows stepped together until all have ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from evenhand.engines.draw import Draw, uniforms
from evenhand.models.decode import Decoder, not_a_number
from evenhand.models.rope_length import Sides
from evenhand.types import Finish, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COMPACT_AT = 16
"""Ended rows leave once they are one in this many: moving rows costs about as much as stepping them once."""
STEPS_PER_LOOK = 8
"""On an accelerator the host looks only this often at which rows have ended; looking waits for the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeRow:
    """One completion to sample: of `prompts[prompt]`, with random numbers keyed by (sampling.seed, *key)."""

    prompt: int
    key: tuple[str, int]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Sampled:
    """`tokens` as drawn, the stop token included; `logp` [len(tokens)] in nats, see `evenhand.engines.draw.Draw`."""

    tokens: tuple[int, ...]
    logp: tuple[float, ...]
    finish: Finish


def plan(
    hf: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[DecodeRow],
    *,
    max_rows: int,
    cache_bytes: int | None,
) -> Iterator[list[int]]:
    """Cuts row indices into waves: prompts of similar length together, longest first, rows of a prompt side by side.

    A wave holds at most `max_rows` rows and, by estimate, `cache_bytes` of keys, values and logits (but at least one row). Rows
    whose rotary frequencies differ are in different waves.
    """
    sides = Sides(hf.config)
    token_bytes, row_bytes = _bytes_per_token(hf), 3 * 4 * hf.config.get_text_config().vocab_size
    budget = _default_bytes(hf.device) if cache_bytes is None else cache_bytes
    order = sorted(range(len(rows)), key=lambda i: (-len(prompts[rows[i].prompt]), rows[i].prompt))
    wave: list[int] = []
    held, last_prompt = 0, -1
    for index in order:
        row = rows[index]
        need = row.sampling.max_tokens * token_bytes + row_bytes
        prompt_need = len(prompts[row.prompt]) * token_bytes
        held += need + (prompt_need if row.prompt != last_prompt else 0)
        side = sides.of(len(prompts[row.prompt]))
        if wave and (len(wave) == max_rows or held > budget or side != sides.of(len(prompts[rows[wave[0]].prompt]))):
            yield wave
            wave, held = [], need + prompt_need
        wave.append(index)
        last_prompt = row.prompt
    if wave:
        yield wave


def _bytes_per_token(hf: PreTrainedModel) -> int:
    """Keys and values of one token over all layers, from the config (an upper bound where layers differ and it does not say)."""
    config = hf.config.get_text_config()
    layers = config.per_layer_config if getattr(config, "is_heterogeneous", False) else [config] * config.num_hidden_layers
    return 2 * sum(map(key_size, layers)) * hf.dtype.itemsize


def key_size(layer: Any) -> int:
    """Numbers in the keys of one token in one layer."""
    heads = getattr(layer, "num_attention_heads", None) or 1
    size = getattr(layer, "head_dim", None) or math.ceil(layer.hidden_size / heads)
    return (getattr(layer, "num_key_value_heads", None) or heads) * size


def _default_bytes(device: torch.device) -> int:
    """2 GB, or a quarter of an accelerator's memory. Not what is free now: waves, and so the last bits, must be repeatable."""
    return torch.cuda.get_device_properties(device).total_memory // 4 if device.type == "cuda" else 2 * 2**30


def run(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[DecodeRow],
    stop: Sequence[int],
    report: Callable[[int], None] = lambda ended: None,
) -> list[Sampled]:
    """Samples one wave; call it inside `decoder.ready()`. One `Sampled` per row, in order. `report` hears how many rows ended."""
    used = list(dict.fromkeys(row.prompt for row in rows))
    place = {prompt: i for i, prompt in enumerate(used)}
    owner = [place[row.prompt] for row in rows]
    session = decoder.open([prompts[p] for p in used], owner)
    tape = _Tape(rows, stop, session.logits.device)
    logits = session.logits[torch.tensor(owner, device=session.logits.device)]
    while (tokens := tape.draw(logits)) is not None:
        if tape.worth_compacting():
            report(tape.finished)
            order = session.compact(~tape.ended)
            tape.select(order)
            tokens = tokens[order]
        logits = session.step(tokens)
    return tape.results()


def stream(decoder: Decoder, prompt: Sequence[int], row: DecodeRow, stop: Collection[int]) -> Iterator[int]:
    """The tokens of one row as they are drawn, up to its stop token or limit; call it inside `decoder.ready()`."""
    session = decoder.open([prompt], [0])
    logits = session.logits
    draw = Draw([row.sampling], logits.device)
    for number in _uniforms([row], row.sampling.max_tokens).to(logits.device):
        tokens, logp = draw(logits, number)
        if not math.isfinite(float(logp)):
            raise not_a_number()
        if (token := int(tokens)) in stop:
            return
        yield token
        logits = session.step(tokens)


class _Tape:
    """What a wave has drawn so far, and which of its rows have ended. Recorded per step [steps, R], in the rows' first order."""

    def __init__(self, rows: Sequence[DecodeRow], stop: Sequence[int], device: torch.device) -> None:
        self._rows, self._stop_ids = rows, stop
        self._stop = torch.tensor(stop, dtype=torch.long, device=device)
        self._limits = torch.tensor([row.sampling.max_tokens for row in rows], device=device)
        self._steps, self._depth = max(row.sampling.max_tokens for row in rows), 0
        self._uniforms = _uniforms(rows, self._steps).to(device)
        self._draw = Draw([row.sampling for row in rows], device)
        self._row = torch.arange(len(rows), device=device)
        self._tokens = torch.zeros(self._steps, len(rows), dtype=torch.long, device=device)
        self._logp = torch.zeros(self._steps, len(rows), device=device)
        self.ended = torch.zeros(len(rows), dtype=torch.bool, device=device)
        self._in_order, self._shortest = True, min(row.sampling.max_tokens for row in rows)
        self._look_every = 1 if device.type == "cpu" else STEPS_PER_LOOK
        self._gone = 0

    def draw(self, logits: Tensor) -> Tensor | None:
        """The next token of every row [R], recorded; None when all rows have ended."""
        t = self._depth
        tokens, logp = self._draw(logits, self._uniforms[t] if self._in_order else self._uniforms[t][self._row])
        where = slice(None) if self._in_order else self._row
        self._tokens[t, where], self._logp[t, where] = tokens, logp
        self._depth = t = t + 1
        if t == self._steps:
            return None
        if self._stop_ids:
            self.ended |= (tokens[:, None] == self._stop).any(1)
        if t >= self._shortest:
            self.ended |= self._limits <= t
        if t % self._look_every == 0 and (self._stop_ids or t >= self._shortest):
            self._gone = int(self.ended.sum())
        return None if self._gone == self.ended.numel() else tokens

    @property
    def finished(self) -> int:
        """Rows that have ended, of all."""
        return len(self._rows) - self.ended.numel() + self._gone

    def worth_compacting(self) -> bool:
        return self._gone > 0 and self._gone * COMPACT_AT >= self.ended.numel()

    def select(self, order: Tensor) -> None:
        """Goes on with the rows `order` only."""
        self._row, self._limits, self.ended = self._row[order], self._limits[order], self.ended[order]
        self._draw.select(order)
        self._gone, self._in_order = 0, False

    def results(self) -> list[Sampled]:
        """Each row cut after its first stop token or at its limit: what a row drew after it had ended never counts."""
        tokens, logp = self._tokens.T.cpu().numpy(), self._logp.T.cpu().numpy()
        stopped = np.isin(tokens, self._stop_ids)
        found = []
        for row, drawn, its_logp, stops in zip(self._rows, tokens, logp, stopped, strict=True):
            hits = stops[: row.sampling.max_tokens].nonzero()[0]
            end = int(hits[0]) + 1 if hits.size else row.sampling.max_tokens
            finish = Finish.STOP if hits.size else Finish.LENGTH
            found.append(Sampled(tuple(drawn[:end].tolist()), tuple(its_logp[:end].tolist()), finish))
        return found


def _uniforms(rows: Sequence[DecodeRow], steps: int) -> Tensor:
    """[steps, R] in double precision; rows draw only as many as they may need."""
    table = np.zeros((steps, len(rows)))
    for i, row in enumerate(rows):
        if row.sampling.temperature > 0:
            table[: row.sampling.max_tokens, i] = uniforms(row.sampling.seed, *row.key, row.sampling.max_tokens)
    return torch.from_numpy(table)
