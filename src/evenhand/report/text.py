"""The sentences of the report: who beats whom, by how much, how sure. "Inconclusive" is a normal answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evenhand.report.formatting import fixed, interval, p_value, percent, points, points_interval
from evenhand.report.summary import ArmRow, Summary
from evenhand.results.record import ArmResult, ArmVerdict, Results
from evenhand.results.record_parts import RewardModelSummary
from evenhand.stats.tests import seeds_needed
from evenhand.train.rules import RULES


@dataclass(frozen=True, slots=True)
class Headline:
    """One line to remember, then the sentences that qualify it."""

    title: str
    sentences: tuple[str, ...]


def headline(summary: Summary) -> Headline:
    """The finding in plain language.

    A win is claimed only when the results give the verdict "better" and the seeds agree; otherwise the page says that no
    difference was resolved.
    """
    if not summary.challengers:
        return _without_comparison(summary)
    claimed = [arm for arm in summary.with_verdict(ArmVerdict.BETTER) if seeds_agree(arm)]
    opening = _winner(summary, claimed[0]) if claimed else _no_winner(summary)
    held_against = doubts(summary, claimed[0]) if claimed else []
    sentences = [*opening.sentences, *(sentence for _, sentence in held_against)]
    if claimed and len(summary.challengers) > 1:
        sentences += [_others(summary, claimed), _against_runner_up(summary, claimed[0])]
    sentences += [_about_seeds(summary), looked(summary)]
    title = ", ".join([opening.title, *(title for title, _ in held_against if title)])
    return Headline(title, tuple(s for s in sentences if s))


MANY_TIES = 0.05
"""Above this share of ties a win rate is not the share of prompts that were won."""
MOST_NAMES = 6
"""A sentence with more names than this says how many others there are."""


def listed(names: Sequence[str]) -> str:
    """Names as a phrase.

    >>> listed(["dpo"]), listed(["dpo", "ipo"]), listed(["dpo", "ipo", "rloo"]), listed(list("abcdefgh"))
    ('dpo', 'dpo and ipo', 'dpo, ipo and rloo', 'a, b, c, d, e and 3 others')
    """
    if len(names) > MOST_NAMES:
        shown = names[: MOST_NAMES - 1]
        return ", ".join(shown) + f" and {len(names) - len(shown)} others"
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _without_comparison(summary: Summary) -> Headline:
    names = [arm.name for arm in summary.arms]
    if not names:
        return _reward_models_alone(summary)
    title = f"{listed(names)} {'was' if len(names) == 1 else 'were'} not judged against another arm"
    return Headline(title, ("This run holds no comparison, so it has no verdict.",))


def _reward_models_alone(summary: Summary) -> Headline:
    """Reward models that were trained without an arm: how often each ranks a held-out pair as its label does."""
    known = {name: m for name, m in summary.results.reward_models.items() if m.accuracy is not None}
    if not known:
        return Headline("No arm has a result", ())
    best = max(known, key=lambda name: known[name].accuracy or 0.0)
    title = f"{best} ranks {percent(known[best].accuracy, 0)} of held-out pairs as their labels do"
    return Headline(title, tuple(_accuracy(name, m) for name, m in known.items()))


def _accuracy(name: str, found: RewardModelSummary) -> str:
    pairs = f" over {found.n} pairs" if found.n else ""
    ceiling = f"; {percent(found.label_ceiling)} is the best that these labels allow" if found.label_ceiling else ""
    return f"{name}: {percent(found.accuracy)}, 95% interval {interval(found.ci95)}{pairs}; 50% would be guessing{ceiling}."


def _winner(summary: Summary, best: ArmRow) -> Headline:
    """The title of a run with a winner."""
    sure = f"95% interval {interval(best.ci95)}{_jointly(best)}" if best.ci95 else "no interval was computed"
    rate = f"{percent(best.win_rate)}, {sure}{_evidence(summary)}. Ties count half; 50% would mean no difference."
    if summary.right_or_wrong:
        return Headline(_solved(summary, best), (f"Win rate of {best.name}: {rate}",))
    if (best.result.ties or 0.0) > MANY_TIES:
        title = f"{best.name} beats {summary.reference}: a win rate of {percent(best.win_rate, 0)}, ties counted half"
    else:
        title = f"{best.name} beats {summary.reference} on {percent(best.win_rate, 0)} of held-out prompts"
    return Headline(title, (f"Exactly: {rate}",))


def _jointly(arm: ArmRow) -> str:
    """The interval that goes with the verdict, where other arms are judged beside this one."""
    return f", {interval(arm.ci95_simultaneous)} for all arms together" if arm.ci95_simultaneous else ""


def _solved(summary: Summary, best: ArmRow) -> str:
    baseline = next(arm for arm in summary.arms if arm.is_baseline)
    solved, before = (percent(arm.result.gold, 0) for arm in (best, baseline))
    return f"{best.name} solves {solved} of held-out prompts, {baseline.name} {before}"


def _no_winner(summary: Summary) -> Headline:
    losers = [arm for arm in summary.with_verdict(ArmVerdict.WORSE) if seeds_agree(arm)]
    open_arms = [arm for arm in summary.challengers if arm not in losers]
    best = summary.challengers[0]
    if not open_arms:
        names = [arm.name for arm in losers]
        title = f"{listed(names)} {'does' if len(names) == 1 else 'do'} worse than {summary.reference}"
    elif losers:
        title = f"No arm beats {summary.reference}; {listed([arm.name for arm in losers])} {_is(losers)} worse"
    elif len(open_arms) == 1:
        title = f"Inconclusive: {best.name} cannot be told apart from {summary.reference}"
    else:
        title = f"Inconclusive: no arm can be told apart from {summary.reference}"
    size = f"{percent(best.win_rate)} (95% interval {interval(best.ci95)}{_jointly(best)}{_evidence(summary)})"
    rate = f"The highest win rate is {best.name}'s: {size}."
    split = [arm.name for arm in open_arms if arm.verdict is not ArmVerdict.INCONCLUSIVE and not seeds_agree(arm)]
    disagree = f"The interval for {listed(split)} excludes 50%, but the seeds do not agree, so no claim is made." if split else ""
    return Headline(title, (rate, disagree, _these_checkpoints(open_arms, summary), power(summary)))


def _these_checkpoints(arms: Sequence[ArmRow], summary: Summary) -> str:
    """What the prompts-only interval already says of arms that stay open once seeds are counted."""
    known = [(arm.name, arm.result.ci95_prompts_only) for arm in arms if arm.verdict is ArmVerdict.INCONCLUSIVE]
    sides = {
        "better": [name for name, pair in known if pair and pair[0] > 0.5],
        "worse": [name for name, pair in known if pair and pair[1] < 0.5],
    }
    claim = " and ".join(f"{listed(names)} {word} than {summary.reference}" for word, names in sides.items() if names)
    reading = f"As single checkpoints, prompts alone would make {claim}; whether training again gives the same stays open."
    return reading if claim else ""


def _others(summary: Summary, claimed: Sequence[ArmRow]) -> str:
    also, worse = list(claimed[1:]), list(summary.with_verdict(ArmVerdict.WORSE))
    rest = [arm for arm in summary.challengers if arm not in claimed and arm not in worse]
    groups = (
        (also, f"also {'beats' if len(also) == 1 else 'beat'} {summary.reference}"), (rest, f"{_is(rest)} inconclusive"),
        (worse, f"{_is(worse)} worse than {summary.reference}"),
    )  # fmt: skip
    parts = [f"{listed([f'{a.name} ({percent(a.win_rate)})' for a in arms])} {words}" for arms, words in groups if arms]
    return "; ".join(parts) + "." if parts else ""


def _against_runner_up(summary: Summary, best: ArmRow) -> str:
    second = next(arm for arm in summary.challengers if arm is not best)
    contrast = summary.contrasts.get((best.name, second.name))
    if contrast is None or contrast.difference is None:
        return ""
    size = f"{points(contrast.difference)} points, 95% interval {points_interval(contrast.ci95)}"
    if contrast.joint is not None:
        size += f", {points_interval(contrast.joint)} for all pairs together"
    if contrast.verdict is ArmVerdict.BETTER:
        return f"{best.name} is also better than the next arm, {second.name} ({size})."
    excludes_zero = contrast.ci95 is not None and not contrast.ci95[0] <= 0.0 <= contrast.ci95[1]
    if excludes_zero and contrast.p_holm is not None:  # else the interval itself would seem to decide
        size += f"; among all the pairs of arms p is {p_value(contrast.p_holm)}"
    return f"Between {best.name} and {second.name} this run cannot decide ({size})."


Doubt = tuple[str, str]
"""Words behind the headline's title, and a sentence below it."""


def doubts(summary: Summary, winner: ArmRow) -> list[Doubt]:
    """Why a winner may be none: it was judged by the score that it was trained on, or its answers have collapsed."""
    return [d for d in (_same_score(summary, winner), _collapsed(summary, winner)) if d is not None]


def _same_score(summary: Summary, winner: ArmRow) -> Doubt | None:
    judge = summary.results.judge
    if judge is None or winner.name not in judge.trained_on:
        return None
    sentence = (
        f"{winner.name} was trained on the score that judges it: this shows that training raised that score, not that "
        "anyone else would prefer the answers. Judge by something that no arm has seen."
    )
    return ("" if summary.right_or_wrong else "by the score it was trained on", sentence)


def _collapsed(summary: Summary, winner: ArmRow) -> Doubt | None:
    """Far from the start, by the training monitor's limits, or with a fraction of the baseline's words; both: collapsed."""
    found = winner.result
    kl, per_token = found.kl or 0.0, (found.kl or 0.0) / (found.mean_length or math.inf)
    far = kl > RULES["kl"].limit and per_token > RULES["kl_per_token"].limit
    left = words_left(found, next((a.result for a in summary.arms if a.is_baseline), None))
    few = left is not None and left < RULES["distinct_below"].limit
    if not far and not few:
        return None
    seen = [f"is {fixed(kl, 0)} nats per answer ({fixed(per_token, 1)} per token) from its start"] if far else []
    seen += [f"has {percent(left, 0)} of the different words of {summary.reference}"] if few else []
    sentence = (
        f"{winner.name} {' and '.join(seen)}: its answers may have collapsed onto what the judge pays for. "
        "Read them before believing the win rate."
    )
    return ("but its answers have collapsed" if far and few else "", sentence)


def words_left(found: ArmResult, base: ArmResult | None) -> float | None:
    """Distinct words as a share of the baseline's; what a longer text would lose anyhow (with the root of its length, by Heaps'
    law) is not held against it. None where either is not known."""
    if base is None or not base.distinct_1 or found.distinct_1 is None:
        return None
    longer = max(1.0, (found.mean_chars or 1.0) / (base.mean_chars or found.mean_chars or 1.0))
    return found.distinct_1 / base.distinct_1 * math.sqrt(longer)


def _about_seeds(summary: Summary) -> str:
    few = {
        1: "One seed was trained, so the interval covers other prompts but not other training runs.",
        2: "Two seeds say little about how much training runs vary; read the interval with care.",
    }
    return few.get(len(summary.results.seeds), "")


def looked(summary: Summary) -> str:
    """A sentence for who looked more than once."""
    return f"{summary.looked[0].upper()}{summary.looked[1:]}." if summary.looked else ""


def power(summary: Summary) -> str:
    """What size of difference from the baseline this run could have seen."""
    most, middle = summary.reach.minimum_detectable_difference, summary.reach.median
    if most is None:
        return ""
    reach = middle if middle is not None else most
    if reach >= 0.5:  # a win rate cannot be further than that from one half
        finding = "With so few seeds and prompts no difference, however large, would reliably have been found"
        return f"{finding}: “inconclusive” says nothing here."
    about = f"about {fixed(100 * reach, 1)} points"
    widest = f"{fixed(100 * most, 1)}" if most < 0.5 else "of any size"
    spread = f" ({widest} for the pair that varies most)" if most > 1.2 * reach else ""
    return (
        f"A difference from {summary.reference} smaller than {about}{spread} would usually go unnoticed here, so “inconclusive” "
        "does not mean “equal”."
    )


def power_among(summary: Summary) -> str:
    """The same of two arms that are not the baseline: many more pairs share that correction. "" where there are none."""
    if summary.reach.minimum_detectable_difference is None or summary.among is None:
        return ""
    known = summary.among < 1.0
    about = f"about {fixed(100 * summary.among, 1)} points" if known else "more than two win rates can differ by"
    return f"Between two other arms it takes {about}."


def corrected(summary: Summary) -> str:
    """Why an arm whose interval excludes 50% can be inconclusive all the same; "" where none is."""
    arms = [a for a in summary.with_verdict(ArmVerdict.INCONCLUSIVE) if a.ci95 and not a.ci95[0] <= 0.5 <= a.ci95[1]]
    against = {a: c.p_holm or 0.0 for (a, b), c in summary.contrasts.items() if b == summary.results.baseline}
    held = [a for a in arms if against.get(a.name, 0.0) >= 0.05]
    if not held:
        return ""
    return (
        f"The interval of {listed([a.name for a in held])} excludes 50% by itself. Among {len(against)} comparisons with the "
        "baseline that can happen by chance: after Holm's correction p is at least 0.05, and the interval for all arms together "
        "holds 50%, so no claim is made."
    )


def _evidence(summary: Summary) -> str:
    seeds, prompts = len(summary.results.seeds), summary.results.n_prompts
    parts = [f"{seeds} seed{'s' * (seeds != 1)}" if seeds else "", f"{prompts} prompts" if prompts else ""]
    return ", over " + " and ".join(filter(None, parts)) if any(parts) else ""


def seeds_agree(arm: ArmRow) -> bool:
    """Whether as many seeds lie on the same side of 50% as the mean as a verdict needs: all of two, all but one of more."""
    values = [value for value in arm.per_seed if value is not None]
    side = 1 if (arm.win_rate or 0.0) > 0.5 else -1
    return sum((value - 0.5) * side > 0 for value in values) >= seeds_needed(len(values))


def _is(arms: Sequence[ArmRow]) -> str:
    return "is" if len(arms) == 1 else "are"


def _seeds(seeds: Sequence[int], words: Callable[[Sequence[str]], str] = ", ".join) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {words([str(s) for s in seeds])}"


def excluded(results: Results) -> list[str]:
    """What has no verdict, and what that does to the comparison."""
    return [
        f"{lost.arm} has no verdict under {_seeds(lost.seeds)}. It is compared on {_seeds(lost.kept)}, with the other arms under "
        "the same seeds; a method that fails now and then is worth less than its remaining seeds say."
        if lost.kept
        else f"{lost.arm} has no verdict under any seed."
        for lost in results.excluded
    ]


def unscored(results: Results) -> list[str]:
    """What a reward model did not score, and what that does to its column."""
    return [
        f"{lost.reward_model} did not score the answers of {listed(lost.arms)} under {_seeds(lost.seeds, listed)}: "
        f"its column is the mean of {_seeds(lost.kept, listed)}. No verdict needs it."
        if lost.kept
        else f"{lost.reward_model} scored no answer of {listed(lost.arms)}: its column is empty there. No verdict needs it."
        for lost in results.unscored
    ]


def cautions(results: Results, judge: Sequence[str]) -> list[tuple[str, str]]:
    """What a reader must know before believing the headline, each with the section that says more."""
    found = [(text, "judge") for text in judge]
    if lost := results.excluded:
        found.append((f"{listed([entry.arm for entry in lost])} lost {'a cell' if len(lost) == 1 else 'cells'}", "failed"))
    elif results.failed:
        count = len(results.failed)
        found.append((f"{count} cell{'s' * (count > 1)} failed or could not start", "failed"))
    if warned := [arm for arm, found in results.arms.items() if found.warnings]:
        found.append((f"Something was said while {listed(warned)} trained", "training"))
    if deviations := results.deviations:
        found.append((f"{len(deviations)} thing{'s' * (len(deviations) > 1)} not equal between arms", "equal"))
    if waived := results.waived:
        found.append((f"{len(waived)} check{'s' * (len(waived) > 1)} waived", "equal"))
    return found
