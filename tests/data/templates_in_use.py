"""Chat templates of the kinds that are in use, written down as short as they can be, and what tests of them share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evenhand.data.load import load
from evenhand.data.template import Renderer
from evenhand.types import Group, Message, TokenGroup
from tests.data.tiny_tokenizers import CHARACTERS, character_tokenizer

MARKS = ("<|im_start|>", "<|im_end|>")
U, A, S, T = (lambda text, role=role, **extra: Message(role, text, extra) for role in ("user", "assistant", "system", "tool"))

PLAIN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Turns as they are; no place for tools, calls or thoughts."""

MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The same, with marks around what the assistant writes."""

TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{% for c in m.tool_calls %}{{ '<call>' + c.function.name + ' ' + c.function.arguments | tojson + '</call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Tools above the turns, calls behind the text (Qwen 2.5 and its like)."""

REWRITES = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% set c = m.content %}{% set r = m.reasoning_content %}"
    "{% if m.role == 'assistant' %}"
    "{% if not r and '</think>' in c %}{% set r = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.index0 > ns.last and (loop.last or r) %}{{ '<think>\n' + (r or '').strip('\n') + '\n</think>\n\n' }}{% endif %}"
    "{% endif %}{{ c + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
"""Thoughts in the last answer only; earlier ones lose theirs once a later question follows (Qwen 3)."""

OPENS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ 'User: ' + m.content + '\n' }}{% else %}"
    "{% set c = m.content %}{% if '</think>' in c %}{% set c = c.split('</think>')[-1] %}{% endif %}"
    "{{ 'Assistant: ' + c + eos_token + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: <think>\n' }}{% endif %}"
)
"""The prompt opens a block of thoughts, and a finished answer has none (models distilled from R1)."""

OPENS_AND_CLOSES = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% if m.reasoning_content %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n' }}"
    "{% elif '</think>' not in m.content %}{{ '<think></think>' }}{% endif %}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
"""The prompt opens a block, and a finished answer without thoughts has an empty one (Nemotron 3)."""

ENDS_ONLY = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>' + m.content }}{% else %}"
    "{% set c = m.content %}{% if '</think>' in c %}{% set c = c.split('</think>')[-1] %}{% endif %}"
    "{{ '<|im_end|></think>' + c + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_end|><think>' }}{% endif %}"
)
"""The prompt opens a block, and a finished answer begins with its end (DeepSeek V3.1 in its thinking mode)."""


def tokenizer(template: str) -> Any:
    return character_tokenizer(more=MARKS, chat_template=template)


def read(folder: Path, *rows: Any, **source: Any) -> list[Group]:
    """The groups of rows written as JSON lines."""
    path = folder / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return load({"path": str(path), **source}).groups


def texts(renderer: Renderer, done: TokenGroup) -> tuple[str, str]:
    """The prompt and what is learned behind it, as text."""
    tokens = done.completions[0]
    learned = [i for i, m in zip(tokens.ids, tokens.mask, strict=True) if m]
    return renderer.tokenizer.decode(done.prompt), renderer.tokenizer.decode(learned)


def learned(template: str, group: Group, supervise: str = "completion") -> list[tuple[str, str]]:
    renderer = Renderer(tokenizer(template))
    done = renderer.tokenise_all([group], max_prompt=None, max_completion=None, supervise=supervise)
    assert not done.dropped, done.dropped
    return [texts(renderer, g) for g in done.groups]


__all__ = ["CHARACTERS", "A", "S", "T", "U", "learned", "read", "texts", "tokenizer"]
