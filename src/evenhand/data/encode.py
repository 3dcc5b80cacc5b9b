"""Text to token ids: in batches, never with special tokens added behind one's back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from evenhand.data.chat_templates import adds_bos
from evenhand.errors import UserError

_ANCHORS = ("\n", ".", "a", "0")

Offsets = list[tuple[int, int]]
"""Per token, the characters of the text it covers: (start, stop)."""


class Encoder:
    """A tokenizer reduced to what rendering needs. `bos` holds the ids that start verbatim text: () or one id."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.bos: tuple[int, ...] = (tokenizer.bos_token_id,) if adds_bos(tokenizer) else ()
        ids = set(tokenizer.all_special_ids)
        ids |= {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if getattr(token, "special", False)}
        self.special_ids: frozenset[int] = frozenset(ids)

    def encode(self, texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The ids of each distinct text, without added special tokens (tokens spelled out in the text are honoured)."""
        unique = list(dict.fromkeys(texts))
        if not unique:
            return {}
        batch = self.tokenizer(
            unique, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )
        return {text: tuple(ids) for text, ids in zip(unique, batch["input_ids"], strict=True)}

    def offsets(self, text: str) -> tuple[tuple[int, ...], Offsets]:
        """The ids of one text and the characters that each covers."""
        batch = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return tuple(batch["input_ids"]), batch["offset_mapping"]

    def starts_with_bos(self, text: str) -> bool:
        """Whether the text spells out the bos token itself."""
        token = self.tokenizer.bos_token
        return bool(token) and text.startswith(token)

    def continuation(self, text: str) -> tuple[int, ...]:
        """The ids of `text` as it continues some text, rather than starts one.

        Tokenizers of the sentencepiece kind put a blank before the first word of a text. Encoding behind an anchor and
        taking the anchor off again avoids that; where every anchor merges with the text, the plain encoding is used.
        """
        for anchor in _ANCHORS:
            head, whole = (self.encode([anchor])[anchor], self.encode([anchor + text])[anchor + text])
            if whole[: len(head)] == head:
                return whole[len(head) :]
        return self.encode([text])[text]

    @cached_property
    def _anchor(self) -> tuple[tuple[int, ...], str]:
        ids = self.encode(["a"])["a"]
        return ids, self._decode(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` as a continuation (a leading blank is kept), special tokens removed."""
        anchor, head = self._anchor
        whole = self._decode([*anchor, *ids])
        return whole[len(head) :] if whole.startswith(head) else self._decode(ids)

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def generation_stops(tokenizer: Any) -> frozenset[int]:
    """The eos ids of the generation config beside the tokenizer, or of the model's config where that alone has them."""
    if not tokenizer.name_or_path:
        return frozenset()
    for name in ("generation_config.json", "config.json"):
        path = Path(tokenizer.name_or_path) / name
        if path.is_file() and (found := _eos_ids(path)):
            return found
    return frozenset()


def _eos_ids(path: Path) -> frozenset[int]:
    """The eos ids of a config, that of its text model where it has several; none where it says nothing."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"not valid JSON: {error}", where=str(path), fix="fetch the model's folder again") from None
    inner = config.get("text_config") if isinstance(config, dict) else None
    eos = next((c["eos_token_id"] for c in (config, inner) if isinstance(c, dict) and c.get("eos_token_id") is not None), None)
    ids = [] if eos is None else eos if isinstance(eos, list) else [eos]
    if not all(type(i) is int for i in ids):
        raise UserError(f"eos_token_id is {eos!r}", where=str(path), fix="it is a token's id, or a list of them")
    return frozenset(ids)


def fingerprint(tokenizer: Any, *extra: Any) -> str:
    """16 hex digits over the tokenizer's vocabulary and rules, its special tokens, its chat template and `extra`."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else dict(sorted(tokenizer.get_vocab().items()))
    rules.pop("truncation", None)  # settings of the last call, not of the tokenizer
    rules.pop("padding", None)
    special = {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())}
    plain = json.dumps([rules, special, tokenizer.chat_template, extra], sort_keys=True, default=str)
    return hashlib.blake2b(plain.encode(), digest_size=8).hexdigest()
