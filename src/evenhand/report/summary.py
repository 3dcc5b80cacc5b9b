"""The results as a reader needs them: one row per arm, one contrast per ordered pair of arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evenhand.report.style import ARMS, ArmStyle, arm_styles
from evenhand.results.comparison import power
from evenhand.results.record import ArmCost, ArmResult, ArmVerdict, Contrast, ControlledWinRate, Power, Results
from evenhand.results.record_judge import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRow:
    """One row of the verdict table. Win rates are shares against the baseline, ties counted half; the baseline has none."""

    name: str
    style: ArmStyle
    verdict: ArmVerdict
    win_rate: float | None
    ci95: Pair | None
    ci95_simultaneous: Pair | None
    """Of all arms' win rates together: it goes with the verdict. None where no other is compared."""
    per_seed: tuple[float | None, ...]
    result: ArmResult
    """All that the run found of the arm."""

    @property
    def verdict_ci95(self) -> Pair | None:
        """The interval that goes with the verdict."""
        return self.ci95_simultaneous or self.ci95

    @property
    def even(self) -> ControlledWinRate:
        """At equal length, as far as it is known."""
        return self.result.length_controlled or ControlledWinRate()

    @property
    def cost(self) -> ArmCost:
        return self.result.ledger or ArmCost()

    @property
    def is_baseline(self) -> bool:
        return self.verdict is ArmVerdict.BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Arms in the order of results.json, and every contrast in both directions."""

    arms: tuple[ArmRow, ...]
    contrasts: Mapping[tuple[str, str], Contrast]
    results: Results
    reach: Power
    """The differences (shares) that this run would usually have found between any arm and the baseline."""
    among: float | None
    """The same for the middle one of the contrasts without the baseline, which share a correction of their own."""

    @property
    def right_or_wrong(self) -> bool:
        """Whether the judge only says 1 or 0: an arm's mean score is then the share of prompts it solves."""
        return self.results.judge is not None and self.results.judge.right_or_wrong

    @property
    def looked(self) -> str:
        """What looking at the comparison more than once does to its errors; empty where it was looked at once."""
        return self.results.looks.note if self.results.looks is not None else ""

    @property
    def joint(self) -> bool:
        """Whether arms are judged beside each other, so that an interval for all of them goes with the verdicts."""
        return any(arm.ci95_simultaneous for arm in self.arms)

    @property
    def styles(self) -> dict[str, ArmStyle]:
        return {arm.name: arm.style for arm in self.arms}

    @property
    def reference(self) -> str:
        """What to call the arm that win rates are measured against."""
        return self.results.baseline or "the baseline"

    @property
    def challengers(self) -> tuple[ArmRow, ...]:
        """Arms with a win rate, best first, without the baseline."""
        judged = [arm for arm in self.arms if not arm.is_baseline and arm.win_rate is not None]
        return tuple(sorted(judged, key=lambda arm: (-(arm.win_rate or 0.0), arm.name)))

    @property
    def ranked(self) -> tuple[ArmRow, ...]:
        """The baseline, then the challengers, best first, then arms without a result: how tables list them."""
        rest = [arm for arm in self.arms if not arm.is_baseline and arm.win_rate is None]
        return (*(arm for arm in self.arms if arm.is_baseline), *self.challengers, *rest)

    @property
    def crowded(self) -> bool:
        """More arms than there are colours: figures and tables are then set tighter."""
        return sum(not arm.is_baseline for arm in self.arms) > len(ARMS)

    def with_verdict(self, verdict: ArmVerdict) -> tuple[ArmRow, ...]:
        return tuple(arm for arm in self.challengers if arm.verdict is verdict)


def summarise(results: Results) -> Summary:
    """The record as rows and contrasts. What it does not hold stays None; nothing is estimated here."""
    baseline, entries = results.baseline, results.arms
    contrasts = _both_ways(results.contrasts)
    if baseline is not None and baseline not in entries:
        entries = {baseline: ArmResult(), **entries}  # it has no win rate against itself, but it has answers and contrasts
    rates = {name: arm.win_rate for name, arm in entries.items() if arm.win_rate is not None}
    styles = arm_styles(entries, baseline, sorted(rates, key=lambda name: -rates[name]))
    declared, others = ([c for c in results.contrasts if (baseline in (c.a, c.b)) is own] for own in (True, False))
    reach = power(declared) if declared else Power()
    return Summary(
        arms=tuple(_row(name, arm, styles[name], baseline, contrasts) for name, arm in entries.items()),
        contrasts=contrasts, results=results, among=power(others).median,
        reach=reach if reach.median is not None else results.power or Power(),
    )  # fmt: skip


def _both_ways(found: Sequence[Contrast]) -> dict[tuple[str, str], Contrast]:
    return {(c.a, c.b): c for pair in found for c in (pair, pair.mirrored())}


def _row(
    name: str, found: ArmResult, style: ArmStyle, baseline: str | None, contrasts: Mapping[tuple[str, str], Contrast]
) -> ArmRow:
    win_rate, ci95, per_seed = found.win_rate, found.ci95, found.per_seed
    if name == baseline:  # against itself it wins half by definition: nothing that was measured
        verdict, win_rate, ci95, per_seed = ArmVerdict.BASELINE, None, None, ()
    elif win_rate is None:
        verdict = ArmVerdict.NO_RESULT
    elif (name, baseline) in contrasts:
        verdict = contrasts[name, str(baseline)].verdict
    else:
        verdict = _from_interval(ci95)
    joint = found.ci95_simultaneous if name != baseline and (found.contrasts or 0) > 1 else None
    return ArmRow(
        name=name, style=style, verdict=verdict, win_rate=win_rate, ci95=ci95, ci95_simultaneous=joint, per_seed=per_seed,
        result=found,
    )  # fmt: skip


def _from_interval(ci95: Pair | None) -> ArmVerdict:
    """Against the baseline itself 50% is "no difference"."""
    if ci95 is None:
        return ArmVerdict.INCONCLUSIVE
    return ArmVerdict.BETTER if ci95[0] > 0.5 else ArmVerdict.WORSE if ci95[1] < 0.5 else ArmVerdict.INCONCLUSIVE
