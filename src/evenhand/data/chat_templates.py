"""Chat templates that can be asked for by name, for tokenizers that bring none.

A base model has no template, and silently giving it one decides what it is trained on. So none is ever a default: the
experiment says `template: plain` (or another name below) and every stage then uses that one.
"""

from __future__ import annotations

import copy
from typing import Any

from evenhand.errors import UserError, one_of

_PLAIN = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content + eos_token }}{% endgeneration %}"
    "{% else %}{{ message.content + '\\n' }}{% endif %}"
    "{% endfor %}"
)
_TRANSCRIPT = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}"
    "{{ '\\n\\nAssistant:' }}{% generation %}{{ ' ' + message.content + eos_token }}{% endgeneration %}"
    "{% elif message.role == 'user' %}{{ '\\n\\nHuman: ' + message.content }}"
    "{% else %}{{ message.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)
_TULU = (
    "{% for message in messages %}"
    "{{ '<|' + message.role + '|>\\n' }}"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content + eos_token }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message.content + '\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message.content + '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

TEMPLATES = {"plain": _PLAIN, "transcript": _TRANSCRIPT, "tulu": _TULU, "chatml": _CHATML}
"""plain: turns on their own lines, no marks; transcript: Human and Assistant as in hh-rlhf; tulu: <|user|> marks as text;
chatml: <|im_start|> and <|im_end|>, which must be tokens of the vocabulary. The first three end an answer with the eos token."""

_NEEDS = {"chatml": ("<|im_start|>", "<|im_end|>")}


def with_template(tokenizer: Any, name: str) -> Any:
    """A copy of a Hugging Face tokenizer with the named chat template (the original is untouched).

    The copy starts a conversation with the bos token exactly when the tokenizer starts plain text with it.
    Raises UserError for an unknown name, a tokenizer without an eos token, or one that lacks the template's special tokens.
    """
    one_of("chat template", name, TEMPLATES, where="template")
    if tokenizer.eos_token is None:
        raise UserError("the tokenizer has no eos token", where=f"template {name}", fix="set tokenizer.eos_token")
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in _NEEDS.get(name, ()) if token not in vocabulary]
    if missing:
        raise UserError(
            f"the tokenizer has no token {' or '.join(missing)}",
            where=f"template {name}",
            why="they would be cut into pieces that the model has never seen as marks",
            fix="use the template plain, transcript or tulu, which need only an eos token",
        )
    renamed = copy.deepcopy(tokenizer)
    renamed.chat_template = ("{{ bos_token }}" if adds_bos(tokenizer) else "") + TEMPLATES[name]
    return renamed


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer starts plain text with its bos token by itself."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return False
    return tokenizer("a")["input_ids"][:1] == [bos] and tokenizer("a", add_special_tokens=False)["input_ids"][:1] != [bos]
