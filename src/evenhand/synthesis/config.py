"""What an experiment file may say about data that it makes itself: labelled samples, and answers revised by principles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evenhand.errors import UserError
from evenhand.judges import config as judging
from evenhand.judges.config import LLM, LocalLLM, PreferenceModel

REVISED = ("revised", "revised_pairs")
"""Splits that `revise` makes: demonstrations, and pairs of a revision and the first answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotate:
    """Make preference pairs: sample from the starting policy, and let a `reward` or a `judge` compare the answers.

    A judge is a language model or a preference model, asked in both orders; its `margin` is of 2p - 1.
    """

    reward: str | Mapping[str, Any] | None = None
    """The reward that compares; in place of `judge`."""
    judge: LLM | LocalLLM | PreferenceModel | None = None
    """The language model that compares; in place of `reward`."""
    choose: Literal["random", "best_worst", "all"] = "random"
    """Which answers make a pair: two at random, the best against the worst, or every two."""
    labels: Literal["hard", "soft", "drawn"] | None = None
    """drawn with the chance of a win, hard, or soft (the chance itself); by default a reward's are drawn, a judge's hard."""
    margin: float = 0.0
    """Pairs that differ by no more are left out. In units of the reward."""
    noise: float = 0.1
    """The annotator's temperature. In units of the reward."""
    flip: float = 0.0
    """Share of labels that is swapped."""
    bias_per_word: float = 0.0
    """What a longer answer gains in the annotator's eyes. In units of the reward."""
    prompts: int = 1000
    """Training prompts that are labelled."""
    heldout_prompts: int = 200
    """Held-out prompts that are labelled."""
    completions_per_prompt: int = 2
    """Answers that are sampled for each prompt."""
    temperature: float = 1.0
    """Of the answers' sampling."""

    def problems(self) -> Iterator[UserError]:
        """What is wrong with the section by itself."""
        if (self.reward is None) == (self.judge is None):
            yield UserError(
                "name either `reward` or `judge`", where="annotate", fix="a reward's name, or `judge: {kind: llm, ...}`"
            )
        if self.judge is not None and (fault := judging.problem(self.judge)):
            yield fault.placed("annotate.judge")
        if self.judge is not None and self.bias_per_word:
            yield UserError("a judge has its own bias", where="annotate.bias_per_word", fix="remove it, or label by a reward")
        if not self.margin >= 0:
            yield UserError(f"a margin of {self.margin:g}", where="annotate.margin", fix="use 0 or more")
        if self.completions_per_prompt < 2:
            yield UserError("a pair needs two answers", where="annotate.completions_per_prompt", fix="use at least 2")


@dataclass(frozen=True, kw_only=True, slots=True)
class Revise:
    """Let a model criticise answers by principles and revise them (Constitutional AI): the splits `revised`, `revised_pairs`."""

    principles: str | None = None
    """A YAML list of {name, critique, revision}; six come with evenhand."""
    rounds: int = 1
    """Times that an answer is criticised and revised."""
    prompts: int = 1000
    """Training prompts that are answered and revised."""
    heldout_prompts: int = 100
    """Held-out prompts that are answered and revised."""
    temperature: float = 1.0
    """Of the sampling of answers, criticism and revision."""
    by: LLM | LocalLLM | None = None
    """The model that answers and revises, in place of the starting policy."""

    def problems(self) -> Iterator[UserError]:
        """What is wrong with the section by itself."""
        from evenhand.synthesis.constitution import BUILTIN, principles

        try:
            principles(self.principles or BUILTIN)
        except UserError as error:
            yield UserError(f"{error.where}: {error.what}", where="revise.principles", why=error.why, fix=error.fix)
        if self.by is not None and (fault := judging.problem(self.by)):
            yield fault.placed("revise.by")
        if self.rounds < 1:
            yield UserError(f"{self.rounds} rounds", where="revise.rounds", fix="use at least 1")
