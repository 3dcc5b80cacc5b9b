"""A check of environments: each is begun and answered, with answers of the data, before a model meets it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from evenhand.data.foreign import special_marks
from evenhand.display import spelled_out
from evenhand.doctor.context import CheckContext
from evenhand.doctor.examine import from_error
from evenhand.doctor.registry import Finding, check, fail, info, share, shortened, warn
from evenhand.doctor.reward import borrowed, tried
from evenhand.environments.registry import Settings
from evenhand.environments.trial import trial
from evenhand.errors import UserError
from evenhand.spec.reward_resolution import kind_in, resolved_reward
from evenhand.types import Group

TURNS = 8
"""Answers that are tried as the one turn of an answer."""


@check(
    "R9",
    "environments begin and answer",
    why="an environment that raises costs every answer its score; one that misses a column of the prompts does so from the start",
    fix="try it by hand (docs/environments.md); check the columns that it reads of the prompts, and what it returns",
)
def environments(patient: CheckContext) -> Iterator[Finding]:
    groups = (borrowed(patient) or tried(patient))[:TURNS]
    for where, settings, rewarded in asked(patient):
        yield from tried_in(patient, where, settings, groups, rewarded=rewarded)


def asked(patient: CheckContext) -> list[tuple[str, Settings, bool]]:
    """Every environment once, by the place where it is asked for first, and whether an arm is rewarded by it."""
    e = patient.experiment
    places = [(name, e.environment_of(arm)) for name, arm in patient.arms.items() if patient.methods[name].online]
    places += [("evaluation", e.asked_in)] if e.arms else []
    paying = [e.environment_of(a) for a in patient.online.values() if kind_in(resolved_reward(a.reward, e), "environment")]
    found: dict[str, tuple[str, Settings, bool]] = {}
    for where, settings in places:
        if settings is not None:
            found.setdefault(repr(settings), (f"{where}.environment", settings, settings in paying))
    return list(found.values())


def tried_in(patient: CheckContext, where: str, settings: Settings, groups: list[Group], *, rewarded: bool) -> Iterator[Finding]:
    """What it says to an answer of the data as the first turn and the last."""
    marks, rewards, failed = special_marks(patient.renderer.tokenizer), list[float](), list[tuple[Group, str]]()
    for group in groups:
        text = group.completions[0].text
        try:
            rewards.append(trial(settings, group.prompt, text, marks=marks).reward)
        except UserError as error:  # no answer at all could have one
            yield from_error(error.placed(where))
            return
        except (Exception, SystemExit) as error:  # somebody else's program
            failed.append((group, spelled_out(f"{type(error).__name__}: {error}")))
    if failed:
        say = fail if not rewards else warn
        seen = f"{where}: it fails for {share(len(failed), len(groups))} answers of the data, the first with {failed[0][1]}"
        yield replace(say(seen), examples=(shortened(failed[0][0].prompt.text),))
    elif rewards:
        gives = f", and gives from {min(rewards):g} to {max(rewards):g}" if rewarded else ""
        yield info(f"{where}: answers {len(rewards)} answers of the data as a last turn{gives}")
