"""The sentences of the report: who beats whom, by how much, how sure. "Inconclusive" is a normal answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evenhand.report.doubts import doubts
from evenhand.report.formatting import fixed, interval, p_value, percent, points, points_interval
from evenhand.report.summary import ArmRow, Summary
from evenhand.report.training_warnings import warned_arms
from evenhand.results.record import ArmVerdict, Excluded, Results, Unscored
from evenhand.results.record_parts import RewardModelSummary
from evenhand.stats.tests import seeds_needed


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
    sentences = [*opening.sentences, *(d.sentence for d in held_against)]
    if claimed and len(summary.challengers) > 1:
        sentences += [_others(summary, claimed), _against_runner_up(summary, claimed[0])]
    sentences += [_about_seeds(summary), looked(summary)]
    title = ", ".join([opening.title, *(d.title for d in held_against if d.title)])
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
    verb = "was" if len(names) == 1 else "were"
    return Headline(
        f"{listed(names)} {verb} not judged against another arm", ("This run holds no comparison, so it has no verdict.",)
    )


def _reward_models_alone(summary: Summary) -> Headline:
    """Reward models that were trained without an arm: how often each ranks a held-out pair as its label does."""
    known = {name: m for name, m in summary.reward_models.items() if m.accuracy is not None}
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
    known = [arm for arm in arms if arm.result.ci95_prompts_only and arm.verdict is ArmVerdict.INCONCLUSIVE]
    better = [arm.name for arm in known if arm.result.ci95_prompts_only and arm.result.ci95_prompts_only[0] > 0.5]
    worse = [arm.name for arm in known if arm.result.ci95_prompts_only and arm.result.ci95_prompts_only[1] < 0.5]
    found = [
        f"{listed(names)} {word} than {summary.reference}" for names, word in ((better, "better"), (worse, "worse")) if names
    ]
    if not found:
        return ""
    claim = " and ".join(found)
    return f"As single checkpoints, prompts alone would make {claim}; whether training again gives the same stays open."


def _others(summary: Summary, claimed: Sequence[ArmRow]) -> str:
    also = list(claimed[1:])
    worse = list(summary.with_verdict(ArmVerdict.WORSE))
    rest = [arm for arm in summary.challengers if arm not in claimed and arm not in worse]
    parts = []
    if also:
        parts.append(f"{_with_rates(also)} also {'beats' if len(also) == 1 else 'beat'} {summary.reference}")
    if rest:
        parts.append(f"{_with_rates(rest)} {_is(rest)} inconclusive")
    if worse:
        parts.append(f"{_with_rates(worse)} {_is(worse)} worse than {summary.reference}")
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


def _about_seeds(summary: Summary) -> str:
    count = len(summary.seeds)
    if count == 1:
        return "One seed was trained, so the interval covers other prompts but not other training runs."
    if count == 2:
        return "Two seeds say little about how much training runs vary; read the interval with care."
    return ""


def looked(summary: Summary) -> str:
    """A sentence for who looked more than once."""
    return f"{summary.looked[0].upper()}{summary.looked[1:]}." if summary.looked else ""


def power(summary: Summary) -> str:
    """What size of difference from the baseline this run could have seen."""
    if summary.mde is None:
        return ""
    reach = summary.mde_median if summary.mde_median is not None else summary.mde
    if reach >= 0.5:  # a win rate cannot be further than that from one half
        finding = "With so few seeds and prompts no difference, however large, would reliably have been found"
        return f"{finding}: “inconclusive” says nothing here."
    about = f"about {fixed(100 * reach, 1)} points"
    widest = f"{fixed(100 * summary.mde, 1)}" if summary.mde < 0.5 else "of any size"
    spread = f" ({widest} for the pair that varies most)" if summary.mde > 1.2 * reach else ""
    return (
        f"A difference from {summary.reference} smaller than {about}{spread} would usually go unnoticed here, so “inconclusive” "
        "does not mean “equal”."
    )


def power_among(summary: Summary) -> str:
    """The same of two arms that are not the baseline: many more pairs share that correction. "" where there are none."""
    if summary.mde is None or summary.mde_among is None:
        return ""
    known = summary.mde_among < 1.0
    about = f"about {fixed(100 * summary.mde_among, 1)} points" if known else "more than two win rates can differ by"
    return f"Between two other arms it takes {about}."


def corrected(summary: Summary) -> str:
    """Why an arm whose interval excludes 50% can be inconclusive all the same; "" where none is."""
    arms = [a for a in summary.with_verdict(ArmVerdict.INCONCLUSIVE) if a.ci95 and not a.ci95[0] <= 0.5 <= a.ci95[1]]
    held = [a for a in arms if (c := summary.contrasts.get((a.name, str(summary.baseline)))) and (c.p_holm or 0.0) >= 0.05]
    if not held:
        return ""
    count = sum(b == summary.baseline for _, b in summary.contrasts)
    return (
        f"The interval of {listed([a.name for a in held])} excludes 50% by itself. Among {count} comparisons with the baseline "
        "that can happen by chance: after Holm's correction p is at least 0.05, and the interval for all arms together holds "
        "50%, so no claim is made."
    )


def _evidence(summary: Summary) -> str:
    parts = []
    if summary.seeds:
        parts.append(f"{len(summary.seeds)} seed{'s' * (len(summary.seeds) != 1)}")
    if summary.n_prompts:
        parts.append(f"{summary.n_prompts} prompts")
    return ", over " + " and ".join(parts) if parts else ""


def seeds_agree(arm: ArmRow) -> bool:
    """Whether as many seeds lie on the same side of 50% as the mean as a verdict needs: all of two, all but one of more."""
    values = [value for value in arm.per_seed if value is not None]
    side = 1 if (arm.win_rate or 0.0) > 0.5 else -1
    return sum((value - 0.5) * side > 0 for value in values) >= seeds_needed(len(values))


def _with_rates(arms: Sequence[ArmRow]) -> str:
    return listed([f"{arm.name} ({percent(arm.win_rate)})" for arm in arms])


def _is(arms: Sequence[ArmRow]) -> str:
    return "is" if len(arms) == 1 else "are"


def held_equal(results: Results) -> list[tuple[str, str]]:
    """What the results themselves state about the common ground of all arms, as (label, value)."""
    judge = results.judge.name if results.judge is not None else None
    facts = (
        ("Compared with", results.baseline), ("Held-out prompts", results.n_prompts),
        ("Seeds", ", ".join(map(str, results.seeds))), ("Judge", judge),
    )  # fmt: skip
    return [(label, str(value)) for label, value in facts if value]


def excluded(results: Results) -> list[str]:
    """What has no verdict, and what that does to the comparison."""
    return [_lost(entry) for entry in results.excluded]


def _seeds(seeds: Sequence[int], words: Callable[[Sequence[str]], str] = ", ".join) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {words([str(s) for s in seeds])}"


def _lost(entry: Excluded) -> str:
    if not entry.kept:
        return f"{entry.arm} has no verdict under any seed."
    return (
        f"{entry.arm} has no verdict under {_seeds(entry.seeds)}. It is compared on {_seeds(entry.kept)}, with the other "
        "arms under the same seeds; a method that fails now and then is worth less than its remaining seeds say."
    )


def unscored(results: Results) -> list[str]:
    """What a reward model did not score, and what that does to its column."""
    return [_not_scored(entry) for entry in results.unscored]


def _not_scored(entry: Unscored) -> str:
    if not entry.kept:
        return f"{entry.reward_model} scored no answer of {listed(entry.arms)}: its column is empty there. No verdict needs it."
    return (
        f"{entry.reward_model} did not score the answers of {listed(entry.arms)} under {_seeds(entry.seeds, listed)}: "
        f"its column is the mean of {_seeds(entry.kept, listed)}. No verdict needs it."
    )


def cautions(results: Results, judge: Sequence[str]) -> list[tuple[str, str]]:
    """What a reader must know before believing the headline, each with the section that says more."""
    found = [(text, "judge") for text in judge]
    if lost := results.excluded:
        found.append((f"{listed([entry.arm for entry in lost])} lost {'a cell' if len(lost) == 1 else 'cells'}", "failed"))
    elif results.failed:
        count = len(results.failed)
        found.append((f"{count} cell{'s' * (count > 1)} failed or could not start", "failed"))
    if warned := warned_arms(results):
        found.append((f"Something was said while {listed(warned)} trained", "training"))
    if deviations := results.deviations:
        found.append((f"{len(deviations)} thing{'s' * (len(deviations) > 1)} not equal between arms", "equal"))
    if waived := results.waived:
        found.append((f"{len(waived)} check{'s' * (len(waived) > 1)} waived", "equal"))
    return found
