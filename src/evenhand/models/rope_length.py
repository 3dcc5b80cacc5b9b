"""Rotary frequencies that depend on how long a row is: which rows may share a forward pass.

transformers takes the frequencies of a whole pass from the longest row in it, so that a row's log-probs would depend on the rows
beside it. Rows whose frequencies differ run apart here: each has those of its own length, as when it runs alone.
    longrope (Ding et al. 2024): one set up to `original_max_position_embeddings` tokens, another beyond.
    dynamic (NTK scaling): one set up to `max_position_embeddings` tokens, beyond them one for every length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from evenhand.errors import UserError


class Sides:
    """A config's rule: rows whose lengths (in tokens) have the same side share their frequencies."""

    def __init__(self, config: Any) -> None:
        self._longrope: list[int] = []
        self._dynamic: list[int] = []
        text = config.get_text_config()
        for rule in _rules(getattr(text, "rope_parameters", None)):
            kind = str(rule.get("rope_type", "default"))
            if kind == "longrope" and (limit := rule.get("original_max_position_embeddings")):
                self._longrope.append(int(limit))
            elif "dynamic" in kind:
                self._dynamic.append(int(text.max_position_embeddings))

    @property
    def switch(self) -> int | None:
        """The longest row with the first set of frequencies; None where all lengths have one."""
        return min([*self._longrope, *self._dynamic], default=None)

    def of(self, length: int) -> tuple[int, ...]:
        """The side of a row of `length` tokens."""
        return (*(int(length > limit) for limit in self._longrope), *(max(length, limit) for limit in self._dynamic))

    def refuse_crossing(self, prompt: int, new: int, *, where: str) -> None:
        """Raises UserError where a row would change sides while it is sampled: its first tokens would then have been drawn from
        another distribution than the trainer (and anybody who reads the whole row) computes."""
        limit = self.switch
        if limit is None or self.of(prompt) == self.of(prompt + new):
            return
        fits = f"set max_prompt to {limit - new}, or lower max_tokens" if new < limit else f"lower max_tokens below {limit}"
        raise UserError(
            f"a prompt of {prompt} tokens and {new} new ones cross {limit} tokens, where the rotary frequencies change",
            where=where, fix=fits, why="tokens sampled before the change would have other log-probs after it",
        )  # fmt: skip


def start_over(hf: nn.Module) -> None:
    """Forget the longest row that was ever seen: a dynamic rotary embedding keeps the frequencies of that one."""
    for module in hf.modules():
        limit = getattr(module, "original_max_seq_len", None)
        if limit is None:
            continue
        for name in [n for n in vars(module) if n.endswith("max_seq_len_cached") and getattr(module, n) != limit]:
            prefix = name.removesuffix("max_seq_len_cached").removeprefix("None_")  # so transformers 5.10 calls its only one
            frequencies = getattr(module, f"{prefix}inv_freq")
            original = getattr(module, f"{prefix}original_inv_freq").to(frequencies.device)
            module.register_buffer(f"{prefix}inv_freq", original, persistent=False)
            setattr(module, name, limit)


def _rules(given: Any) -> Iterator[Mapping[str, Any]]:
    """Rotary parameters, of all layers or by kind of layer."""
    if not isinstance(given, Mapping):
        return
    if "rope_type" in given:
        yield given
    for value in given.values():
        yield from _rules(value)
