"""People as judges: what they are shown, what they said, how far they agree, and the page they say it on."""

from __future__ import annotations

from enum import StrEnum


class Form(StrEnum):
    """How answers are compared."""

    pair = "pair"
    """Which of two is better."""
    ranking = "ranking"
    """All of a prompt's answers from best to worst; ties are allowed."""
    rating = "rating"
    """Each answer from 1 to 5."""
