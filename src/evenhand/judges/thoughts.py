"""Where a reply speaks: behind its thoughts. Verdicts are read there only; thoughts weigh both sides and quote the form."""

from __future__ import annotations

import re

_NAMES = r"think|thinking|thought|thoughts|reasoning|reflection|seed:think"
_OPEN = re.compile(rf"^[ \t]*(?:<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|(?:begin_of_thought|START_THINKING)\|>)", re.MULTILINE)
_CLOSE = re.compile(rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|(?:end_of_thought|END_THINKING)\|>")
_CHANNEL = re.compile(r"<\|channel\|>\s*(?:analysis|commentary)\b")
_FINAL = re.compile(r"<\|channel\|>\s*final\b[^<]*(?:<\|message\|>)?")
_BARE_FINAL = re.compile(r"assistantfinal(?!\w*ly)")


def speech_start(text: str) -> int | None:
    r"""The place behind all thoughts of a reply; None when they never end.

    Thoughts end at their last closing mark, whether they were opened in the reply or in the prompt. An opening mark counts at
    the beginning of a line, so that a judge may speak of an answer's `<think>`.

    >>> speech_start("fine. [[A]]"), speech_start("<think>[[A]]?</think>[[B]]"), speech_start("[[A]]?</think>[[B]]")
    (0, 21, 14)
    >>> speech_start("<think>Is it [[A]]?"), speech_start("B forgets its <think> part. [[A]]")
    (None, 0)
    """
    start = max((m.end() for m in _CLOSE.finditer(text)), default=0)
    if _CHANNEL.search(text):
        final = max((m.end() for m in _FINAL.finditer(text)), default=None)
        return None if final is None else max(start, final)
    if text.lstrip().startswith("analysis") and (bare := _BARE_FINAL.search(text)):  # the same without its special tokens
        start = max(start, bare.end())
    return None if _OPEN.search(text, start) else start
