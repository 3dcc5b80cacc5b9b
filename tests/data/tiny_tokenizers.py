"""Tokenizers small enough to know every id by heart: one token per character, `ab` merged, special tokens on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 \n.,:!?<>|/_#'-{}\"+=[]"


def character_tokenizer(*, bos: bool = False, eos: str = "</s>", more: Sequence[str] = (), chat_template: str = "") -> Any:
    """Ids: 0 <unk>, 1 <s>, 2 </s>, then `more` special tokens, then characters, last the merge "ab".

    `bos`: verbatim text starts with <s>, as llama's tokenizers do.
    """
    from tokenizers import Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", *more]
    vocabulary = {token: i for i, token in enumerate([*special, *CHARACTERS, "ab"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")], unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token=eos, unk_token="<unk>", extra_special_tokens=list(more)
    )
    if chat_template:
        wrapped.chat_template = chat_template
    return wrapped


def ids_of(tokenizer: Any, *tokens: str) -> tuple[int, ...]:
    """The ids of tokens given one by one: a special token, the merge "ab", or a text cut into its characters."""
    vocabulary = tokenizer.get_vocab()
    found: list[int] = []
    for token in tokens:
        found += [vocabulary[token]] if token in vocabulary else [vocabulary[c] for c in token]
    return tuple(found)
