"""Waves: prompts prefilled together and rows stepped in lock step; rows that end make room for a wave of those that wait."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from evenhand.engines.draw import Draw, uniforms
from evenhand.models.decode import Decoder, held_bytes, not_a_number, step_together, steps_together
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


class RowQueue:
    """Rows that wait to be sampled: prompts of similar length together, longest first, rows of a prompt side by side.

    At most `max_rows` run at once, and by estimate they hold at most `cache_bytes` of keys, values and logits (but at least one
    runs). Rows whose rotary frequencies differ never run together.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[DecodeRow],
        *,
        max_rows: int,
        cache_bytes: int | None,
    ) -> None:
        self._rows, self._lengths, self._sides, self._max_rows = rows, [len(p) for p in prompts], Sides(hf.config), max_rows
        self._token_bytes, self._row_bytes = _bytes_per_token(hf), 3 * 4 * hf.config.get_text_config().vocab_size
        self._budget = _default_bytes(hf.device) if cache_bytes is None else cache_bytes
        self._order = sorted(range(len(rows)), key=lambda i: (-self._lengths[rows[i].prompt], rows[i].prompt))

    def __len__(self) -> int:
        return len(self._order)

    def take(self, running: Sequence[int] = (), held: int = 0) -> list[int]:
        """The rows that begin now, beside those `running`, whose keys and values take `held` bytes.

        A few rows beside many would cost a prefill, and attention of their own in every step after it: none begin before half of
        the room is free, unless no more wait.
        """
        held = max(held, sum(self._needs(running)))
        found = self._fitting(running, held)
        if running and len(found) < len(self) and (2 * held > self._budget or 2 * len(running) > self._max_rows):
            return []
        del self._order[: len(found)]
        return found

    def _fitting(self, running: Sequence[int], held: int) -> list[int]:
        side = self._side(running[0] if running else self._order[0])
        room = self._max_rows - len(running)
        count = 0
        for index, need in zip(self._order[:room], self._needs(self._order), strict=False):
            held += need
            if (count or running) and (held > self._budget or self._side(index) != side):
                break
            count += 1
        return self._order[:count]

    def _needs(self, indices: Iterable[int]) -> Iterator[int]:
        """Bytes of each row, at its limit; the first row of a prompt carries the prompt's."""
        last_prompt = -1
        for row in (self._rows[i] for i in indices):
            prompt_tokens = self._lengths[row.prompt] if row.prompt != last_prompt else 0
            yield (row.sampling.max_tokens + prompt_tokens) * self._token_bytes + self._row_bytes
            last_prompt = row.prompt

    def _side(self, index: int) -> tuple[int, ...]:
        return self._sides.of(self._lengths[self._rows[index].prompt])


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
    *,
    max_rows: int,
    cache_bytes: int | None,
    report: Callable[[int], None] = lambda ended: None,
) -> list[Sampled]:
    """Samples all rows; call it inside `decoder.ready()`. One `Sampled` per row, in order. `report` hears how many rows ended.

    Rows that end make room for a wave of those that wait, which is stepped beside the others.
    """
    waiting = RowQueue(decoder.hf, prompts, rows, max_rows=max_rows, cache_bytes=cache_bytes)
    found: dict[int, Sampled] = {}
    waves: list[_Wave] = []
    fewer = True
    while waiting or waves:
        if waiting and fewer and (not waves or steps_together(decoder)):
            running = [index for wave in waves for index in wave.running]
            if begun := waiting.take(running, held_bytes([wave.session for wave in waves])):
                waves.append(_Wave(decoder, prompts, rows, begun, stop))
        going = [wave for wave in waves if wave.draw()]
        for wave in waves:
            if wave not in going:
                found |= wave.results()
        dropped = [wave for wave in going if wave.compact()]
        if fewer := bool(dropped) or len(going) < len(waves):
            report(len(found) + sum(wave.finished for wave in going))
        waves = going
        stepped = step_together([wave.session for wave in waves], [wave.tokens for wave in waves])
        for wave, logits in zip(waves, stepped, strict=True):
            wave.logits = logits
    return [found[index] for index in range(len(rows))]


class _Wave:
    """Rows of `rows` that are prefilled together and stepped in lock step: those at `indices`."""

    def __init__(
        self,
        decoder: Decoder,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[DecodeRow],
        indices: Sequence[int],
        stop: Sequence[int],
    ) -> None:
        self._indices, its = indices, [rows[i] for i in indices]
        used = list(dict.fromkeys(row.prompt for row in its))
        place = {prompt: i for i, prompt in enumerate(used)}
        owner = [place[row.prompt] for row in its]
        self.session = decoder.open([prompts[p] for p in used], owner)
        device = self.session.logits.device
        self._tape = _Tape(its, stop, device)
        self.logits = self.session.logits[torch.tensor(owner, device=device)]
        self.tokens = torch.empty(0, dtype=torch.long, device=device)

    @property
    def running(self) -> list[int]:
        """Which rows are still stepped, in the order in which they began."""
        return [self._indices[i] for i in sorted(self._tape.left())]

    @property
    def finished(self) -> int:
        return self._tape.finished

    def draw(self) -> bool:
        """Draws the `tokens` of all rows from `logits`; False where every row has ended."""
        drawn = self._tape.draw(self.logits)
        if drawn is not None:
            self.tokens = drawn
        return drawn is not None

    def compact(self) -> bool:
        """Drops the rows that have ended, once they are many enough; whether it did."""
        if not self._tape.worth_compacting():
            return False
        order = self.session.compact(~self._tape.ended)
        self._tape.select(order)
        self.tokens = self.tokens[order]
        return True

    def results(self) -> dict[int, Sampled]:
        return dict(zip(self._indices, self._tape.results(), strict=True))


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

    def left(self) -> list[int]:
        """The rows that are still stepped."""
        return self._row.tolist()

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
