"""One turn in an environment, without a model: whether it begins, answers, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence

from evenhand.environments.episodes import checked, checked_prompt
from evenhand.environments.registry import Settings, build, limits_of
from evenhand.protocols import Action, Reply
from evenhand.rewards.time_limit import waiting_for
from evenhand.types import Prompt


def trial(settings: Settings, prompt: Prompt, text: str, *, seed: int = 0, marks: Sequence[str] = ()) -> Reply:
    """What an environment says to `text` as the only turn of an answer to `prompt`. Raises what it raises, and for a reply that
    is none (see `episodes.checked`); UserError where it takes longer than its limit."""
    made = build(settings, seed=seed)
    late = ("no reply", "make the environment faster, or give it more time: `environment: {seconds: ...}`")
    with waiting_for(f"the environment, prompt {prompt.id}", limits_of(settings).seconds, late=late):
        checked_prompt(made.reset(prompt))
        return checked(made.step(Action(text, last=True)), True, marks)
