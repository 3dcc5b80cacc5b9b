"""The records everything is made of. See docs/design.md: one record (the group), one batch (the packed prompt tree)."""

from evenhand.types.records import (
    Completion,
    Content,
    Finish,
    Group,
    Message,
    Prompt,
    Sampling,
    Scores,
    Turn,
    content_id,
    content_text,
)
from evenhand.types.tensors import Batch, Head, Layout, ModelOut, Need, Span, Term, Terms, TokenGroup, Tokens, Weighted

__all__ = [
    "Batch", "Completion", "Content", "Finish", "Group", "Head", "Layout", "Message", "ModelOut", "Need", "Prompt", "Sampling",
    "Scores", "Span", "Term", "Terms", "TokenGroup", "Tokens", "Turn", "Weighted", "content_id", "content_text",
]  # fmt: skip
