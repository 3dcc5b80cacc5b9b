"""Rewards that are short programs: sentiment, the right number, the right form, overlap with a hidden reference."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction

import regex

from evenhand.errors import UserError
from evenhand.rewards.pointwise import Pointwise, meta_field, pointwise
from evenhand.types import Completion, Prompt
from evenhand.worlds.expressions import REASONED, numbers_in
from evenhand.worlds.labels import words

PATTERN_SECONDS = 10.0
"""For one answer and the pattern of the reward `format`."""


def vader() -> Pointwise:
    """VADER's compound sentiment in [-1, 1]: higher is more positive. Source: Hutto and Gilbert 2014."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    return pointwise(lambda prompt, completion: analyzer.polarity_scores(completion.text)["compound"], name="vader")


def last_number(*, field: str = "answer", tolerance: float = 0.0) -> Pointwise:
    """1 if the last number of the answer equals the last number of `meta[field]` (up to `tolerance`), else 0.

    Exact fractions; `1,000` is one number. GSM8K's `#### 42` and `meta = {"answer": 42}` both work.
    """

    if not 0 <= tolerance < math.inf:
        raise UserError(f"a tolerance of {tolerance}", where="reward number", fix="use 0, or a number above it")

    def score(prompt: Prompt, completion: Completion) -> float:
        wanted = _wanted(prompt, field)
        found = numbers_in(completion.text)
        return float(bool(found) and abs(found[-1] - wanted) <= Fraction(tolerance))

    return pointwise(score, name="number")


def _wanted(prompt: Prompt, field: str) -> Fraction:
    numbers = numbers_in(str(meta_field(prompt, field, "number")))
    if not numbers:
        raise UserError(f"the field '{field}' holds no number", where=f"reward number, prompt {prompt.id}")
    return numbers[-1]


def form(*, pattern: str) -> Pointwise:
    """1 if the whole answer matches the regular expression (blanks around it do not matter; `.` matches a line end), else 0.
    An answer on which it takes more than PATTERN_SECONDS ends the run: repetitions inside of repetitions may never end.

    >>> from evenhand.types import *
    >>> tags = form(pattern="<answer>.+</answer>")
    >>> tags([Group(prompt=Prompt(content="?"), completions=(Completion(content="<answer>4</answer>"),))])[0].values
    (1.0,)
    """
    try:
        re.compile(pattern, re.DOTALL)  # Python's own syntax, which the other takes in its version 0
        compiled = regex.compile(pattern, regex.DOTALL)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        raise UserError(f"not a regular expression: {error}", where="reward format, pattern") from error

    def score(prompt: Prompt, completion: Completion) -> bool:
        text = completion.text.strip()
        try:
            return bool(compiled.fullmatch(text, timeout=PATTERN_SECONDS))
        except TimeoutError:
            raise UserError(
                f"the pattern {pattern!r:.80} takes more than {PATTERN_SECONDS:g} seconds on an answer of {len(text)} characters",
                where=f"reward format, prompt {prompt.id}",
                why="it can be matched in too many ways, all of which are tried",
                fix="write it without repetitions inside of repetitions",
            ) from None

    return pointwise(score, name="format")


def rouge_l(*, field: str = "reference") -> Pointwise:
    """ROUGE-L F1 against the hidden reference `meta[field]`, in [0, 1]. Source: Lin 2004.

    Words, lower case, without stemming; with L the longest common subsequence: precision L / |answer|, recall L / |reference|.
    """

    def score(prompt: Prompt, completion: Completion) -> float:
        return rouge_l_f1(words(completion.text), words(str(meta_field(prompt, field, "rouge_l"))))

    return pointwise(score, name="rouge_l")


def rouge_l_f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    """`2 L / (|found| + |wanted|)`, L the length of the longest common subsequence; 0 if either is empty.

    >>> rouge_l_f1("police killed the gunman".split(), "police kill the gunman".split())
    0.75
    """
    return 2.0 * common_subsequence(found, wanted) / (len(found) + len(wanted)) if found and wanted else 0.0


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, in O(|a| |b|) time and O(|b|) memory."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def two_words(*, field: str = "reference") -> Pointwise:
    """For an answer of one or two words, the share of them that the hidden reference `meta[field]` contains; 0 for any other.

    A program's stand-in for the language model that compares two-word summaries in Swamy et al. 2025 (arXiv:2503.01067):
    ROUGE-1 precision (Lin 2004) under a limit of two words.

    >>> from evenhand.types import *
    >>> prompt = Prompt(content="?", meta={"reference": "I lost my keys in the snow."})
    >>> answers = tuple(Completion(content=c) for c in ("Lost keys", "lost dog", "I lost keys"))
    >>> two_words()([Group(prompt=prompt, completions=answers)])[0].values
    (1.0, 0.5, 0.0)
    """

    def score(prompt: Prompt, completion: Completion) -> float:
        said, wanted = words(completion.text), set(words(str(meta_field(prompt, field, "two_words"))))
        return sum(w in wanted for w in said) / len(said) if 1 <= len(said) <= 2 else 0.0

    return pointwise(score, name="two_words")


def thinking() -> Pointwise:
    """1 if the whole answer is `<reasoning>..</reasoning><answer>..</answer>`, with no tag inside either, else 0."""
    return pointwise(lambda prompt, completion: bool(REASONED.match(completion.text)), name="thinking")


def math_answer(*, field: str = "answer") -> Pointwise:
    """1 if the answer's final expression equals `meta[field]` as mathematics, else 0. Needs the package math-verify."""
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise UserError(
            "the package math-verify is not installed", where="reward math", fix="pip install 'math-verify[antlr4_13_2]'"
        ) from error

    def score(prompt: Prompt, completion: Completion) -> float:
        wanted = str(meta_field(prompt, field, "math"))
        gold = parse(wanted if "$" in wanted or "\\boxed" in wanted else f"${wanted}$")
        return float(bool(verify(gold, parse(completion.text))))

    return pointwise(score, name="math")
