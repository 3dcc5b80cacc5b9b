"""`results.json` as one record: what a run found, by field. Page, tables, model card and Python read it, and not the file.

Every field has a default, so that a file of an older version reads as a record with less in it: None or empty is "not known".
Shares lie in [0, 1], KL is in nats per sequence, entropy in nats per token, lengths are in tokens unless they are `chars`.
`results.load` reads a file, `docs/results.schema.json` is its JSON schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

from typing_extensions import override

from evenhand.results.record_judge import JudgeSummary, Pair, Sample
from evenhand.results.record_parts import (
    BestOfNPoint,
    CheckpointChoice,
    EarlyEnd,
    EvaluationResult,
    FrontierPoint,
    LengthGrid,
    LengthLeaning,
    PassRate,
    RewardModelSummary,
    SamplerGap,
    StalenessSummary,
    TrainingPoint,
    TrainingWarning,
    TuningSummary,
)

VERSION = 1
"""Of the file's layout: it changes when a reader of the version before would misread the file, not when a field is added."""


class ArmVerdict(StrEnum):
    """What the data say about an arm against another one."""

    BETTER = "better"
    WORSE = "worse"
    INCONCLUSIVE = "inconclusive"
    BASELINE = "baseline"
    """The arm is the one that the others are compared with."""
    NO_RESULT = "no result"
    """Nothing was judged: the cell failed or was not run."""

    @property
    def mirrored(self) -> ArmVerdict:
        """The same finding seen from the other side."""
        return {ArmVerdict.BETTER: ArmVerdict.WORSE, ArmVerdict.WORSE: ArmVerdict.BETTER}.get(self, self)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedDifference:
    """A difference of two win rates with its own interval, that of its family, and the verdict on the first; see `Contrast`."""

    difference: float | None = None
    ci95: Pair | None = None
    ci95_simultaneous: Pair | None = None
    contrasts: int | None = None
    per_seed: tuple[float, ...] = ()
    p_holm: float | None = None
    verdict: ArmVerdict = ArmVerdict.NO_RESULT

    @property
    def joint(self) -> Pair | None:
        """The interval that goes with the verdict; None where the contrast is judged by itself."""
        return self.ci95_simultaneous if (self.contrasts or 0) > 1 else None

    @property
    def verdict_ci95(self) -> Pair | None:
        """The interval that goes with the verdict."""
        return self.joint or self.ci95

    def mirrored(self) -> Self:
        """The same finding seen from the other side."""
        return replace(
            self, difference=None if self.difference is None else -self.difference, ci95=_turned(self.ci95),
            ci95_simultaneous=_turned(self.ci95_simultaneous), per_seed=tuple(-d for d in self.per_seed),
            verdict=self.verdict.mirrored,
        )  # fmt: skip


def _turned(pair: Pair | None) -> Pair | None:
    return None if pair is None else (-pair[1], -pair[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlledContrast(JudgedDifference):
    """A contrast at equal length: the difference of the win rates that both would have with answers as long as the baseline's."""

    scope: str = ""
    """What the intervals are over: "prompts", or "seeds and prompts"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast(JudgedDifference):
    """Arm `a` minus arm `b` on the `seeds` of both: the difference of their win rates, its interval, and the verdict on `a`.

    `p_holm` is Holm's p over the contrasts with the baseline, which the experiment declares, or over all the others. `contrasts`
    of them share its family, and hold the truth together with 95 % in `ci95_simultaneous`, which goes with the verdict; `ci95` is
    the contrast's alone. A `minimum_detectable_difference` of 1 says that none is large enough.
    """

    a: str
    b: str
    seeds: tuple[int, ...] = ()
    p: float | None = None
    minimum_detectable_difference: float | None = None
    length_controlled: ControlledContrast | None = None

    @override
    def mirrored(self) -> Self:
        """The same finding seen from `b`.

        >>> Contrast(a="dpo", b="sft", difference=0.1, ci95=(0.02, 0.18), verdict=ArmVerdict.BETTER).mirrored().ci95
        (-0.18, -0.02)
        """
        even = None if self.length_controlled is None else self.length_controlled.mirrored()
        return replace(JudgedDifference.mirrored(self), a=self.b, b=self.a, length_controlled=even)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlledWinRate:
    """An arm's win rate if all answers were as long as the baseline's; `form` names the regression, `length_effect` its logit."""

    win_rate: float | None = None
    ci95: Pair | None = None
    form: str | None = None
    note: str = ""
    length_effect: float | None = None
    scope: str = ""
    """What the interval is over: "prompts", or "seeds and prompts"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedModel:
    """The binomial mixed model's win rate, its seeds' sd in logits, and whether the arm's interval reaches as far (`shown`)."""

    win_rate: float
    ci95: Pair
    seed_sd: float
    shown: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCost:
    """What one seed of an arm cost in counts that do not depend on the machine, as a mean over its seeds."""

    tokens_generated: float | None = None
    tokens_trained: float | None = None
    reward_calls: float | None = None
    flops: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """One arm against the baseline. `per_seed` and `gold_per_seed` follow the run's seeds, None where this arm has none.

    An arm without any verdict has its method and no `win_rate`. The baseline's win rate is one half by definition.
    """

    win_rate: float | None = None
    ci95: Pair | None = None
    ci95_prompts_only: Pair | None = None
    ci95_two_way: Pair | None = None
    """Without the mixed model, where there is one."""
    ci95_simultaneous: Pair | None = None
    """Goes with the verdict: of all `contrasts` with the baseline together."""
    contrasts: int | None = None
    mixed_model: MixedModel | None = None
    per_seed: tuple[float | None, ...] = ()
    ties: float | None = None
    note: str = ""
    method: str | None = None
    seeds: tuple[int, ...] = ()
    """Those under which it has a verdict."""
    gold: float | None = None
    """Mean score by the judge."""
    gold_per_seed: tuple[float | None, ...] = ()
    invalid: float | None = None
    mean_length: float | None = None
    mean_chars: float | None = None
    truncated: float | None = None
    kl: float | None = None
    distinct_1: float | None = None
    distinct_2: float | None = None
    repetition: float | None = None
    self_overlap: float | None = None
    entropy: float | None = None
    empty: float | None = None
    refusal: float | None = None
    reward: float | None = None
    """Mean of its own training reward over the held-out answers; None for an arm without one, and where it was not measured."""
    proxies: Mapping[str, float | None] = field(default_factory=dict)
    """Mean score by every reward model of the run; None by one that scored none of the answers (see `Results.unscored`)."""
    ledger: ArmCost | None = None
    judge_cost_usd: float | None = None
    length_controlled: ControlledWinRate | None = None
    warnings: tuple[TrainingWarning, ...] = ()
    pass_at: tuple[PassRate, ...] = ()
    stopped: Mapping[str, EarlyEnd] = field(default_factory=dict)
    """By seed, where a limit of the user's ended training."""
    staleness: StalenessSummary | None = None
    """Where older weights sampled what it learned from."""
    sampler_gap: SamplerGap | None = None
    """Of an arm that samples with anything but this package's own sampler in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """The differences that this design would usually have found: for the noisiest pair of arms, the middle one, the steadiest."""

    minimum_detectable_difference: float | None = None
    median: float | None = None
    least: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """Every design (seeds, prompts) that this run directory has shown results of, in order, and what they do to errors.

    `alpha` is what this look may err, `spent` all of them; `note` is empty where one look was taken at what was planned.
    """

    designs: tuple[tuple[int, int], ...] = ()
    planned: tuple[int, int] | None = None
    count: int = 1
    alpha: float = 0.05
    spent: float = 0.05
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """Seeds of an arm that have no verdict and count nowhere, and those that are kept."""

    arm: str
    seeds: tuple[int, ...]
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unscored:
    """Seeds under which a reward model did not score the answers of these arms, and those that its column is a mean over.

    Such as one that failed: no verdict rests on it.
    """

    reward_model: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    kept: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedStage:
    """A stage that failed, or that could not start because of one ("needs ..."); the error names no folder of the machine."""

    node: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waived:
    """A check of the doctor's that the experiment lets pass."""

    check: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginUsed:
    """Code of the user's that the run used: as the experiment names it, its file, and the digest of all it may consist of."""

    name: str
    source: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a run found. Optional parts are empty where a run has none of them; None where its version did not record them."""

    version: int = VERSION
    name: str | None = None
    description: str = ""
    baseline: str | None = None
    judge: JudgeSummary | None = None
    n_prompts: int | None = None
    seeds: tuple[int, ...] = ()
    arms: Mapping[str, ArmResult]
    contrasts: tuple[Contrast, ...] = ()
    looks: Looks | None = None
    power: Power | None = None
    excluded: tuple[Excluded, ...] = ()
    unscored: tuple[Unscored, ...] = ()
    reward_models: Mapping[str, RewardModelSummary] = field(default_factory=dict)
    held_equal: tuple[str, ...] = ()
    deviations: tuple[str, ...] | None = None
    samples: tuple[Sample, ...] = ()
    frontier: Mapping[str, tuple[FrontierPoint, ...]] = field(default_factory=dict)
    best_of_n: Mapping[str, tuple[BestOfNPoint, ...]] = field(default_factory=dict)
    best_of_n_by_arm: Mapping[str, Mapping[str, tuple[BestOfNPoint, ...]]] = field(default_factory=dict)
    """The same of the answers of the arms in `evaluation.best_of_arms`; intervals are over seeds and prompts."""
    length_bias: Mapping[str, LengthLeaning] = field(default_factory=dict)
    length_grid: LengthGrid | None = None
    selection: Mapping[str, Mapping[str, CheckpointChoice]] = field(default_factory=dict)
    """By arm and seed, of arms that keep their best weights."""
    evaluations: Mapping[str, EvaluationResult] = field(default_factory=dict)
    """What the arms were compared on besides, by name."""
    over_training: Mapping[str, tuple[TrainingPoint, ...]] = field(default_factory=dict)
    """By arm, of arms that keep weights on the way: the curve of what they are worth."""
    tuning: TuningSummary | None = None
    stage_warnings: Mapping[str, tuple[TrainingWarning, ...]] = field(default_factory=dict)
    """By stage, of those that are no arm's own."""
    curves: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By arm and seed, the metrics' place in the run directory."""
    failed: tuple[FailedStage, ...] | None = None
    waived: tuple[Waived, ...] = ()
    plugins: tuple[PluginUsed, ...] = ()
