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

    A judge is a language model or a preference model, asked in both orders. `choose`: two answers at random, the best against
    the worst, or every two. `labels`: `drawn` with the chance that an answer is preferred, `hard` for the likelier one, or
    `soft` to learn the chance itself; a reward's labels are drawn unless said, a judge's are hard. `margin`: pairs whose
    rewards (or 2p - 1) differ by no more are left out. `noise` is the annotator's temperature in units of the reward, `flip`
    swaps that share of labels, `bias_per_word` is what a longer answer gains in its eyes.
    """

    reward: str | Mapping[str, Any] | None = None
    judge: LLM | LocalLLM | PreferenceModel | None = None
    choose: Literal["random", "best_worst", "all"] = "random"
    labels: Literal["hard", "soft", "drawn"] | None = None
    margin: float = 0.0
    noise: float = 0.1
    flip: float = 0.0
    bias_per_word: float = 0.0
    prompts: int = 1000
    heldout_prompts: int = 200
    completions_per_prompt: int = 2
    temperature: float = 1.0

    def problems(self) -> Iterator[UserError]:
        """What is wrong with the section by itself."""
        if (self.reward is None) == (self.judge is None):
            yield UserError(
                "name either `reward` or `judge`", where="annotate", fix="a reward's name, or `judge: {kind: llm, ...}`"
            )
        if self.judge is not None and (fault := judging.problem(self.judge)):
            yield UserError(fault.what, where="annotate.judge", why=fault.why, fix=fault.fix)
        if self.judge is not None and self.bias_per_word:
            yield UserError("a judge has its own bias", where="annotate.bias_per_word", fix="remove it, or label by a reward")
        if self.margin < 0:
            yield UserError(f"a margin of {self.margin:g}", where="annotate.margin", fix="use 0 or more")
        if self.completions_per_prompt < 2:
            yield UserError("a pair needs two answers", where="annotate.completions_per_prompt", fix="use at least 2")


@dataclass(frozen=True, kw_only=True, slots=True)
class Revise:
    """Let a model criticise answers by principles and revise them (Constitutional AI): the splits `revised`, `revised_pairs`.

    `principles` is a YAML list of {name, critique, revision}; six come with evenhand. First answers and revisions are the
    starting policy's unless `by` names another model.
    """

    principles: str | None = None
    rounds: int = 1
    prompts: int = 1000
    heldout_prompts: int = 100
    temperature: float = 1.0
    by: LLM | LocalLLM | None = None

    def problems(self) -> Iterator[UserError]:
        """What is wrong with the section by itself."""
        from evenhand.synthesis.constitution import BUILTIN, principles

        try:
            principles(self.principles or BUILTIN)
        except UserError as error:
            yield UserError(f"{error.where}: {error.what}", where="revise.principles", why=error.why, fix=error.fix)
        if self.rounds < 1:
            yield UserError(f"{self.rounds} rounds", where="revise.rounds", fix="use at least 1")
