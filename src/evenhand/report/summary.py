"""The results as a reader needs them: one row per arm, one contrast per ordered pair of arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from evenhand.report.formatting import is_number, is_pair
from evenhand.report.style import ARMS, ArmStyle, arm_styles

Pair = tuple[float, float]


class Verdict(StrEnum):
    """What the data say about an arm against another one."""

    BETTER = "better"
    WORSE = "worse"
    INCONCLUSIVE = "inconclusive"
    BASELINE = "baseline"
    """The arm is the one that the others are compared with."""
    NO_RESULT = "no result"
    """Nothing was judged: the cell failed or was not run."""


_MIRROR = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """Arm `a` minus arm `b`: the difference of their win rates as a share, its 95% interval, Holm's p, and the verdict on `a`."""

    a: str
    b: str
    difference: float | None
    ci95: Pair | None
    p_holm: float | None
    verdict: Verdict
    controlled: Contrast | None = None
    """The same at equal length, where the run could tell."""

    def mirrored(self) -> Contrast:
        """The same finding seen from `b`."""
        return Contrast(
            a=self.b,
            b=self.a,
            difference=None if self.difference is None else -self.difference,
            ci95=None if self.ci95 is None else (-self.ci95[1], -self.ci95[0]),
            p_holm=self.p_holm,
            verdict=_MIRROR.get(self.verdict, self.verdict),
            controlled=None if self.controlled is None else self.controlled.mirrored(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One row of the verdict table. Win rates are shares against the baseline, ties counted half."""

    name: str
    style: ArmStyle
    verdict: Verdict
    win_rate: float | None
    ci95: Pair | None
    ci95_prompts_only: Pair | None
    per_seed: tuple[float | None, ...]
    raw: Mapping[str, Any]
    """The arm's whole entry in results.json, for the optional columns."""

    @property
    def is_baseline(self) -> bool:
        return self.verdict is Verdict.BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Arms in the order of results.json, and every contrast in both directions."""

    arms: tuple[Arm, ...]
    contrasts: Mapping[tuple[str, str], Contrast]
    baseline: str | None
    seeds: tuple[Any, ...]
    n_prompts: int | None
    right_or_wrong: bool
    """Whether the judge only says 1 or 0: an arm's mean score is then the share of prompts it solves."""
    mde: float | None
    """The smallest difference (a share) that this run would usually have found between any two arms; None if not computed."""
    mde_median: float | None
    """The same for the middle one of all pairs of arms."""

    @property
    def reference(self) -> str:
        """What to call the arm that win rates are measured against."""
        return self.baseline or "the baseline"

    @property
    def challengers(self) -> tuple[Arm, ...]:
        """Arms with a win rate, best first, without the baseline."""
        judged = [arm for arm in self.arms if not arm.is_baseline and arm.win_rate is not None]
        return tuple(sorted(judged, key=lambda arm: (-(arm.win_rate or 0.0), arm.name)))

    @property
    def ranked(self) -> tuple[Arm, ...]:
        """The baseline, then the challengers, best first, then arms without a result: how tables list them."""
        rest = [arm for arm in self.arms if not arm.is_baseline and arm.win_rate is None]
        return (*(arm for arm in self.arms if arm.is_baseline), *self.challengers, *rest)

    @property
    def crowded(self) -> bool:
        """More arms than there are colours: figures and tables are then set tighter."""
        return sum(not arm.is_baseline for arm in self.arms) > len(ARMS)

    def with_verdict(self, verdict: Verdict) -> tuple[Arm, ...]:
        return tuple(arm for arm in self.challengers if arm.verdict is verdict)


def summarise(results: Mapping[str, Any]) -> Summary:
    """Read results.json's content. Fields that are absent stay None; nothing is estimated here."""
    baseline = results.get("baseline")
    contrasts = _contrasts(results.get("contrasts") or ())
    entries = results["arms"]
    if baseline is not None and baseline not in entries:
        entries = {baseline: {}, **entries}  # it has no win rate against itself, but it has answers and contrasts
    rates = {name: raw["win_rate"] for name, raw in entries.items() if is_number(raw.get("win_rate"))}
    styles = arm_styles(entries, baseline, sorted(rates, key=lambda name: -rates[name]))
    power = results.get("power") or {}
    mde = power.get("minimum_detectable_difference")
    return Summary(
        arms=tuple(_arm(name, raw, styles[name], baseline, contrasts) for name, raw in entries.items()),
        contrasts=contrasts,
        baseline=baseline,
        seeds=tuple(results.get("seeds") or ()),
        n_prompts=results.get("n_prompts"),
        right_or_wrong=bool((results.get("judge") or {}).get("right_or_wrong")),
        mde=mde if is_number(mde) else None,
        mde_median=_number(power.get("median")),
    )


def _contrasts(entries: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Contrast]:
    both: dict[tuple[str, str], Contrast] = {}
    for entry in entries:
        at_equal_length = entry.get("length_controlled")
        contrast = _contrast(entry, _contrast({**at_equal_length, "a": entry["a"], "b": entry["b"]}) if at_equal_length else None)
        both[contrast.a, contrast.b] = contrast
        both[contrast.b, contrast.a] = contrast.mirrored()
    return both


def _contrast(entry: Mapping[str, Any], controlled: Contrast | None = None) -> Contrast:
    return Contrast(
        a=entry["a"],
        b=entry["b"],
        difference=_number(entry.get("difference")),
        ci95=_pair(entry.get("ci95")),
        p_holm=_number(entry.get("p_holm")),
        verdict=Verdict(entry.get("verdict", Verdict.NO_RESULT)),
        controlled=controlled,
    )


def _arm(
    name: str, raw: Mapping[str, Any], style: ArmStyle, baseline: str | None, contrasts: Mapping[tuple[str, str], Contrast]
) -> Arm:
    win_rate, ci95, per_seed = _number(raw.get("win_rate")), _pair(raw.get("ci95")), raw.get("per_seed") or ()
    if name == baseline:  # against itself it wins half by definition: nothing that was measured
        verdict, win_rate, ci95, per_seed = Verdict.BASELINE, None, None, ()
    elif win_rate is None:
        verdict = Verdict.NO_RESULT
    elif (name, baseline) in contrasts:
        verdict = contrasts[name, str(baseline)].verdict
    else:
        verdict = _from_interval(ci95)
    return Arm(
        name=name,
        style=style,
        verdict=verdict,
        win_rate=win_rate,
        ci95=ci95,
        ci95_prompts_only=_pair(raw.get("ci95_prompts_only")),
        per_seed=tuple(_number(value) for value in per_seed),
        raw=raw,
    )


def _from_interval(ci95: Pair | None) -> Verdict:
    """Against the baseline itself 50% is "no difference"."""
    if ci95 is None:
        return Verdict.INCONCLUSIVE
    return Verdict.BETTER if ci95[0] > 0.5 else Verdict.WORSE if ci95[1] < 0.5 else Verdict.INCONCLUSIVE


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def _pair(value: Any) -> Pair | None:
    return (float(value[0]), float(value[1])) if is_pair(value) else None
