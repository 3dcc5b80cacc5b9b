"""Arms against each other: a result per arm, a contrast per pair, on the seeds that both have. See `docs/statistics.md`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any, TypeVar

import numpy as np

from evenhand.evaluation.policies import mean_overlap, text_metrics
from evenhand.results.files import carried
from evenhand.results.judge_summary import controlled_win_rate, equal_lengths, mean_or_none
from evenhand.results.record import (
    ArmCost,
    ArmResult,
    ArmVerdict,
    Contrast,
    ControlledContrast,
    JudgedDifference,
    MixedModel,
    Power,
)
from evenhand.results.reward_scores import own_reward, reward_means
from evenhand.results.run_artifacts import RunArtifacts
from evenhand.stats.family import Judged, judged
from evenhand.stats.length_contrasts import AtEqualLength, LengthControlledDifference, length_controlled_difference
from evenhand.stats.planning import resolved_by
from evenhand.stats.twoway import MIXED_FROM, Difference, paired_difference, win_rate
from evenhand.types import Group

F = TypeVar("F", bound=JudgedDifference)
COUNTS = tuple(f.name for f in fields(ArmCost))


Fits = dict[tuple[int, ...], Mapping[str, AtEqualLength]]
"""Arms at equal length by the seeds that they were fitted on; filled as needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairDifference:
    """Arm `a` minus arm `b` on the seeds of both, as they are and at equal length (None where that cannot be had)."""

    a: str
    b: str
    seeds: tuple[int, ...]
    raw: Difference
    controlled: LengthControlledDifference | None


def arm_results(done: RunArtifacts, fits: Fits) -> dict[str, ArmResult]:
    """A result per arm of the experiment; an arm without a verdict keeps its place, without a win rate."""
    rows = {arm: arm_result(done, arm) if done.seeds(arm) else _lost(done, arm) for arm in done.plan.arms}
    for seeds in dict.fromkeys(done.seeds(a) for a in done.arms):  # of arms that lost a seed, by the seeds that are left
        for arm, found in even(done, seeds, fits).items():
            if arm != done.baseline and done.seeds(arm) == seeds:
                rows[arm] = replace(rows[arm], length_controlled=controlled_win_rate(found))
    return rows


def even(done: RunArtifacts, seeds: tuple[int, ...], fits: Fits) -> Mapping[str, AtEqualLength]:
    """At equal length, every arm that has all of `seeds`; nothing without the baseline."""
    if seeds not in fits:
        arms = [a for a in done.arms if set(seeds) <= set(done.seeds(a))]
        outcomes, chars = {a: done.table(a, "outcome", seeds) for a in arms}, {a: done.chars(a, seeds) for a in arms}
        fits[seeds] = equal_lengths(outcomes, chars, done.baseline) if done.baseline in arms else {}
    return fits[seeds]


def arm_result(done: RunArtifacts, arm: str) -> ArmResult:
    """One arm; its values per seed follow the comparison's seeds, None where this arm has none."""
    seeds = done.seeds(arm)
    verdicts, measured = [done.verdicts[arm][s] for s in seeds], [done.measured[arm][s] for s in seeds]
    mean = lambda field: float(np.mean([m[field] for m in measured]))  # noqa: E731
    proxies = reward_means(done, arm)
    gold = mean_or_none([v["gold"] for v in verdicts])
    found = ArmResult(
        method=done.plan.experiment.arm(arm).method,
        seeds=seeds,
        gold=gold,
        gold_per_seed=done.by_seed({s: mean_or_none(done.verdicts[arm][s]["gold"]) for s in seeds}),
        invalid=float(np.mean([v["account"]["invalid"] for v in verdicts])),
        mean_length=mean("length"),
        mean_chars=mean("chars"),
        truncated=mean("truncated"),
        kl=mean("kl"),
        **of_texts([done.generations(arm, s) for s in seeds]),
        reward=own_reward(done.plan.experiment, arm, proxies, gold),
        proxies=proxies,
        ledger=ledger(done, arm, seeds),
        judge_cost_usd=_sum([v["account"].get("cost_usd") for v in verdicts]),
    )
    if arm == done.baseline:
        return replace(found, win_rate=0.5, per_seed=done.by_seed(dict.fromkeys(seeds, 0.5)), ties=1.0)
    won = win_rate(done.table(arm, "outcome", seeds))
    found = replace(
        found, win_rate=won.estimate, ci95=won.ci95, ci95_prompts_only=won.ci95_prompts_only,
        per_seed=done.by_seed(dict(zip(seeds, won.per_seed, strict=True))), ties=won.ties, note=won.note,
    )  # fmt: skip
    if (fit := won.mixed) is None:
        return found
    mixed = MixedModel(win_rate=fit.estimate, ci95=fit.interval(), seed_sd=fit.seed_sd, shown=won.k >= MIXED_FROM)
    return replace(found, mixed_model=mixed, ci95_two_way=won.ci95_two_way)


def _lost(done: RunArtifacts, arm: str) -> ArmResult:
    return ArmResult(per_seed=done.by_seed({}), method=done.plan.experiment.arm(arm).method)


def of_texts(seeds: Sequence[Sequence[Group]]) -> dict[str, Any]:
    """Text metrics of an arm's answers. `self_overlap` is between the answers of different seeds to one prompt."""
    found = text_metrics([g for groups in seeds for g in groups])
    overlap = mean_overlap([c.text for g in same for c in g.completions] for same in zip(*seeds, strict=True))
    names = ("distinct_1", "distinct_2", "repetition", "entropy", "empty")
    return {
        **{name: found.get(name) for name in names}, "self_overlap": None if math.isnan(overlap) else overlap,
        "refusal": found.get("refusals", {}).get("all", {}).get("rate"),
    }  # fmt: skip


def ledger(done: RunArtifacts, arm: str, seeds: Sequence[int]) -> ArmCost:
    """Mean counts over seeds; seconds stay in the arms' own ledgers, since they differ from run to run.

    A seed whose training is damaged or gone, though its answers were judged before, counts in the others' mean.
    """
    if not done.plan.trained(arm):
        return ArmCost(**dict.fromkeys(COUNTS, 0.0))
    rows = [done.load(node, "ledger.json") for s in seeds if done.has(node := done.plan.arms[arm][s])]
    return ArmCost(**{name: float(np.mean([r[name] for r in rows])) for name in COUNTS}) if rows else ArmCost()


def differences(done: RunArtifacts, fits: Fits) -> list[PairDifference]:
    """Every arm against every other, those with the baseline first, by the paired difference of their win rates over it."""
    arms = [a for a in done.plan.arms if done.seeds(a)]
    pairs = sorted(combinations(arms, 2), key=lambda p: done.baseline not in p)
    found = []
    for first, second in pairs:
        a, b = (second, first) if first == done.baseline else (first, second)
        seeds = tuple(s for s in done.seeds(a) if s in done.seeds(b))
        if not seeds:
            continue  # never trained under one seed: nothing pairs them
        fitted = even(done, seeds, fits)
        controlled = length_controlled_difference(fitted[a], fitted[b]) if a in fitted and b in fitted else None
        raw = paired_difference(done.table(a, "outcome", seeds), done.table(b, "outcome", seeds))
        found.append(PairDifference(a=a, b=b, seeds=seeds, raw=raw, controlled=controlled))
    return found


def judged_together(
    found: Sequence[PairDifference], baseline: str, more: Sequence[Difference] = (), *, alpha: float = 0.05
) -> tuple[tuple[Contrast, ...], tuple[Judged, ...]]:
    """Contrasts with Holm's correction, and the intervals that go with it; see `stats.family`. Beside them those on `more`.

    Those with the baseline, which the experiment declares, are one family, `more` differences of other evaluations included; what
    is left, a search among the arms, is another. `alpha`: what either family may err, less than 5 % where several looks share it.
    """
    declared = [baseline in (c.a, c.b) for c in found]
    every = judged([*(c.raw for c in found), *more], [*declared, *(True for _ in more)], alpha=alpha)
    raw = every[: len(found)]
    known = [(c.controlled, family) for c, family in zip(found, declared, strict=True) if c.controlled is not None]
    even = iter(judged([d for d, _ in known], [family for _, family in known], alpha=alpha))
    made = tuple(
        finding(
            Contrast, c.raw, j, a=c.a, b=c.b, seeds=c.seeds, p=c.raw.p,
            minimum_detectable_difference=min(resolved_by(c.raw, alpha=alpha, contrasts=j.contrasts), 1.0),
            length_controlled=None if c.controlled is None
            else finding(ControlledContrast, c.controlled, next(even), scope=c.controlled.scope),
        )
        for c, j in zip(found, raw, strict=True)
    )  # fmt: skip
    return made, tuple(every[len(found) :])


def finding(tp: type[F], d: Difference | LengthControlledDifference, j: Judged, **more: Any) -> F:
    """A difference with its verdict among the others of its family."""
    return carried(tp, j, difference=d.estimate, ci95=d.ci95, per_seed=d.per_seed, verdict=ArmVerdict(j.verdict), **more)


def beside_verdicts(arms: Mapping[str, ArmResult], found: Sequence[Contrast], baseline: str) -> dict[str, ArmResult]:
    """The arms, each with the interval of its win rate that goes with its verdict against the baseline, and how many share it."""
    beside = dict(arms)
    for c in found:
        if c.b == baseline and c.ci95_simultaneous is not None and c.a in beside and beside[c.a].ci95 is not None:
            low, high = c.ci95_simultaneous
            beside[c.a] = replace(beside[c.a], ci95_simultaneous=(low + 0.5, high + 0.5), contrasts=c.contrasts)
    return beside


def power(found: Sequence[Contrast]) -> Power:
    """What this run would have found: for the noisiest pair, the middle one and the steadiest."""
    reach = sorted(c.minimum_detectable_difference for c in found if c.minimum_detectable_difference is not None)
    if not reach:
        return Power()
    return Power(minimum_detectable_difference=reach[-1], median=float(np.median(reach)), least=reach[0])


def _sum(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return math.fsum(known) if known else None
