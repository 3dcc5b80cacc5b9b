"""Checks of what is optimised and of who judges, on the data's own answers, before anything is sampled; and of environments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evenhand.data.convert import pairs_of
from evenhand.data.foreign import special_marks
from evenhand.display import spelled_out
from evenhand.doctor.context import CheckContext, spaced
from evenhand.doctor.examine import from_error
from evenhand.doctor.opened import Unavailable
from evenhand.doctor.pretrained import Existing
from evenhand.doctor.registry import Finding, check, fail, info, share, shortened, warn
from evenhand.environments.registry import Settings
from evenhand.environments.trial import trial
from evenhand.errors import UserError
from evenhand.judges import RewardJudge, self_test
from evenhand.judges.selftest import PLANTED_FLOOR, shuffled
from evenhand.rewards.fields import fields_read, having
from evenhand.spec.evaluations import ScoringJudge
from evenhand.spec.reward_resolution import kind_in, models_in, resolved_reward
from evenhand.types import Completion, Group, Message

TRIED = 64
"""Answers that a reward is tried on."""
PROBES = {"thanks": " Thank you, thank you so much!", "itself once more": None, "emoji": " 😀🎉👍"}
"""What is put behind an answer that should not make it better; None repeats the answer."""


@check(
    "R1",
    "every reward scores the data's answers, and not all alike",
    why="a reward that misses a field, or is the same for all answers, gives no gradient; the loss sits near zero, as in health",
    fix="check the reward's field names (meta columns of the prompts), its form, and its range",
)
def scores(patient: CheckContext) -> Iterator[Finding]:
    for where, reward in rewards(patient):
        own, asked = answers_for(patient, reward), borrowed(patient)
        groups = own[:TRIED] or asked or tried(patient)
        try:
            values = [v for s in patient.reward(reward)(groups) for v in s.values]
            if not own and asked:
                told = "the answers of the data are to other prompts"
                yield info(f"{where}: scores {len(asked)} prompts that are sampled for; {told}")
                continue
        except Unavailable as error:
            cause = error.__cause__
            failed = from_error(cause) if isinstance(cause, UserError) else fail(f"{where}: {error}")
            yield replace(failed, examples=(shortened(groups[0].prompt.text),))
            continue
        missing = sum(math.isnan(v) for v in values)
        known = [v for v in values if not math.isnan(v)]
        if any(math.isinf(v) for v in known):
            yield fail(f"{where}: {sum(map(math.isinf, known))} of {len(values)} scores are infinite")
        elif not known:
            yield fail(f"{where}: none of {len(values)} answers of the data could be scored")
        elif missing > 0.2 * len(values):
            yield warn(f"{where}: {missing} of {len(values)} answers could not be scored")
        elif len(set(known)) == 1 and len(known) >= 16 and any(len(g.completions) > 1 for g in groups):
            yield warn(f"{where}: all {len(known)} answers of the data score {known[0]:g}")
        else:
            yield info(
                f"{where}: from {min(known):.3g} to {max(known):.3g}, mean {np.mean(known):.3g}, "
                f"on {len(known)} answers of the data"
            )


@check(
    "R2",
    "rewards have the right sign",
    why="a reward with its sign flipped trains the opposite of what is wanted, with a healthy curve",
    fix="turn the sign in the reward's own function, or swap the columns of the pairs if those are wrong",
)
def sign(patient: CheckContext) -> Iterator[Finding]:
    for where, reward in rewards(patient):
        yield from _against_labels(patient, where, reward)
        good = [g for g in answers_for(patient, reward) if len(g.completions) == 1][:32]
        if len(good) < 8:
            continue
        score = patient.reward(reward)
        mean = _mean(score, good)
        for name, bad in _worse(good).items():
            other = _mean(score, bad)
            if not math.isnan(other) and other > mean:
                yield warn(f"{where}: demonstrations score {mean:.3g}, {name} {other:.3g}")


@check(
    "R3",
    "a reward is not paid for length or for flattery",
    why="what a policy finds first is what is cheap: more words, thanks, repetition",
    fix="combine it with a length term, or with another reward (`{kind: weighted, parts: ...}`)",
)
def cheap(patient: CheckContext) -> Iterator[Finding]:
    for where, reward in rewards(patient):
        groups = answers_for(patient, reward)[:TRIED]
        if len(groups) < 16:
            continue
        score = patient.reward(reward)
        pairs = [
            (v, len(c.text))
            for g, s in zip(groups, score(groups), strict=True)
            for v, c in zip(s.values, g.completions, strict=True)
        ]
        known = np.array([p for p in pairs if math.isfinite(p[0])]).reshape(-1, 2)
        if len(known) < 16:
            continue
        values, lengths = known.T
        if values.std() > 0 and lengths.std() > 0:
            r = float(np.corrcoef(values, lengths)[0, 1])
            if r > 0.3 and not _asks_for_length(patient, reward):
                yield warn(f"{where}: its correlation with the length of an answer is {r:.2f}")
        if _asks_for_length(patient, reward):
            continue
        before = _mean(score, groups)
        for name, suffix in PROBES.items():
            after = _mean(score, [_with_suffix(g, suffix) for g in groups])
            gain = (after - before) / (values.std() or 1.0)
            if gain > 0.25:
                yield warn(f"{where}: {name} behind an answer raises its score by {gain:.2g} standard deviations")


@check(
    "R6",
    "the judge prefers what must be better",
    why="a judge that cannot tell an answer from its own words in another order cannot tell arms apart",
    fix="choose another judge, or a template for it; the run's own self-test says more",
    quick=False,
)
def judge(patient: CheckContext) -> Iterator[Finding]:
    asked = patient.experiment.judge
    if not isinstance(asked, ScoringJudge):
        raise Unavailable("the run tests a judging model itself")
    groups = answers_for(patient, asked.reward)[:20]
    if len(groups) < 8:
        raise Unavailable("the data have too few answers to test the judge with")
    told = self_test(
        RewardJudge(patient.reward(asked.reward), name="judge", tie=asked.tie), [(g.prompt, g.completions[0]) for g in groups]
    )
    if told["passed"] is False or told.get("planted", 1.0) < PLANTED_FLOOR:
        yield warn(
            f"identical answers {told['identical']:.2f} (0.5 is even-handed), ruined answers lose in {told['planted']:.0%}"
        )
    elif told["passed"]:
        yield info(f"identical answers {told['identical']:.2f}, ruined answers lose in {told['planted']:.0%}")


@check(
    "R7",
    "the judge is not what was optimised",
    why="an arm trained on the judge's own model wins by finding its faults, not by being better",
    fix="judge by a program, another model, or people",
)
def own_judge(patient: CheckContext) -> Iterator[Finding]:
    scoring = [judge.reward for judge in patient.experiment.judges().values() if isinstance(judge, ScoringJudge)]
    judging = {name for reward in scoring for name in models_in(resolved_reward(reward, patient.experiment))}
    for name, arm in patient.online.items():
        shared = judging & models_in(resolved_reward(arm.reward, patient.experiment))
        if shared:
            yield warn(f"{name} is trained on {', '.join(sorted(shared))}, which also judges")


def rewards(patient: CheckContext) -> list[tuple[str, Any]]:
    """Every reward that needs no model trained by this run, once, by the place where it is asked for first.

    The full form opens reward models that exist; what cannot be opened is R8's to tell. What an environment gives
    for turns says nothing of the data's answers, which have none.
    """
    e = patient.experiment
    there = set() if patient.quick else {n for n, m in patient.adopted.items() if Existing.reward.error(m) is None}
    asked = [(f"{name}.reward", arm.reward) for name, arm in patient.arms.items() if arm.reward is not None]
    asked += [("annotate.reward", e.annotate.reward)] if e.annotate is not None and e.annotate.reward is not None else []
    asked += [(f"{where}.reward", judge.reward) for where, judge in e.judges().items() if isinstance(judge, ScoringJudge)]
    found: dict[str, tuple[str, Any]] = {}
    for where, reward in asked:
        spec = resolved_reward(reward, e)
        if models_in(spec) <= there and not kind_in(spec, "environment"):
            found.setdefault(repr(spec), (where, reward))
    return list(found.values())


def tried(patient: CheckContext) -> list[Group]:
    """Prompts with answers to try a reward on: the data's own, else the prompt's first words as a stand-in."""
    groups = _written(patient)[:TRIED]
    return groups or [Group(prompt=p, completions=(_stand_in(p),)) for p in patient.prompts(TRIED)]


def answers_for(patient: CheckContext, reward: Any) -> list[Group]:
    """The data's own answers to prompts that have the fields that the reward reads."""
    return having(_written(patient), fields_of(patient, reward))


def fields_of(patient: CheckContext, reward: Any) -> frozenset[str]:
    """What the reward reads of the prompts that are sampled for; none where it cannot score answers to them, which R1 tells."""
    try:
        return fields_read(patient.reward(reward), borrowed(patient))
    except Unavailable:
        return frozenset()


def borrowed(patient: CheckContext) -> list[Group]:
    """Prompts that are sampled for, or held out where none is, with answers of the data to others."""
    written = _written(patient)[:TRIED]
    known = {g.prompt.id for g in written}
    splits = (patient.splits.get(name, []) for name in ("prompts", "heldout_prompts"))
    rows = next((new for split in splits if (new := [g for g in split if g.prompt.id not in known])), [])
    prompts = [g.prompt for g in spaced(rows, TRIED)]
    return [Group(prompt=p, completions=(_said(p, g.completions[0].text),)) for p, g in zip(prompts, written, strict=False)]


def _written(patient: CheckContext) -> list[Group]:
    """Rows with an answer that someone wrote, demonstrations first."""
    names = sorted(patient.answered, key=lambda n: (not n.startswith("demonstrations"), n))
    return [g for n in names for g in spaced(patient.answered[n], TRIED)]


def _stand_in(prompt: Any) -> Completion:
    return _said(prompt, " ".join(prompt.text.split()[:5]) or "yes")


def _said(like: Any, text: str) -> Completion:
    """An answer in the form of a prompt or another answer: text, or an assistant's turn."""
    return Completion(content=text if isinstance(like.content, str) else (Message("assistant", text),))


def _against_labels(patient: CheckContext, where: str, reward: Any) -> Iterator[Finding]:
    pairs = [p for n, groups in patient.answered.items() if n.endswith("preferences") for g in groups for p in pairs_of(g)[:1]]
    pairs = spaced(having(pairs, fields_of(patient, reward)), 100)
    if len(pairs) < 20:
        return
    gaps = [s.values[0] - s.values[1] for s in patient.reward(reward)(pairs)]
    decided = [g for g in gaps if g == g and g != 0]
    right = sum(g > 0 for g in decided)
    if len(decided) >= 20 and right / len(decided) + 1.96 * math.sqrt(0.25 / len(decided)) < 0.5:
        yield fail(f"{where}: it prefers the rejected answer in {len(decided) - right} of {len(decided)} pairs of the data")
    elif decided:
        yield info(f"{where}: agrees with {right} of {len(decided)} pairs of the data ({len(gaps) - len(decided)} ties)")


def _worse(good: Sequence[Group]) -> dict[str, list[Group]]:
    """The same prompts with answers that must not be better."""
    texts = [g.completions[0].text for g in good]
    return {
        "empty answers": [_answering(g, "") for g in good],
        "shuffled words": [_answering(g, shuffled(t, g.prompt.id)) for g, t in zip(good, texts, strict=True)],
        "another prompt's answers": [_answering(g, texts[i - 1]) for i, g in enumerate(good)],
    }


def _answering(group: Group, text: str) -> Group:
    return Group(prompt=group.prompt, completions=(_said(group.completions[0], text),))


def _with_suffix(group: Group, suffix: str | None) -> Group:
    text = group.completions[0].text
    return _answering(group, text + (" " + text if suffix is None else suffix))


def _mean(score: Any, groups: Sequence[Group]) -> float:
    values = [s.values[0] for s in score(groups)]
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def _asks_for_length(patient: CheckContext, reward: Any) -> bool:
    """Whether length is part of the reward on purpose."""
    return "length" in repr(resolved_reward(reward, patient.experiment))


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
