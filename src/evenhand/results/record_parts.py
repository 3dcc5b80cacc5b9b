"""The parts of the results record that are about one thing each: reward models, curves, lengths, training, tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evenhand.results.record_judge import Pair

# ---- reward models ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementBin:
    """`n` pairs between `low` and `high` (None: no end): the share predicted right and the share that was."""

    low: float | None = None
    high: float | None = None
    n: int
    predicted: float
    observed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """A change that makes answers no better: the mean `change` of score in its standard deviations, how often it `raised` it."""

    change: float
    ci95: Pair
    raised: float
    fooled: bool
    n: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModelSummary:
    """A reward model on held-out pairs: means over its seeds, with the first seed's interval around them."""

    accuracy: float | None = None
    ci95: Pair | None = None
    per_seed: tuple[float, ...] = ()
    mean_margin: float | None = None
    log_loss: float | None = None
    log_loss_per_seed: tuple[float, ...] = ()
    ece: float | None = None
    length_correlation: float | None = None
    ties: float | None = None
    n: int | None = None
    label_ceiling: float | None = None
    calibration: tuple[AgreementBin, ...] = ()
    by_length: Mapping[str, AgreementBin] = field(default_factory=dict)
    probes: Mapping[str, ProbeResult] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfNPoint:
    """Expected gold score of a scorer's favourite of `n` answers of a policy, over `prompts`."""

    n: int
    gold: float
    ci95: Pair | None = None
    reward: float | None = None
    kl_bound: float | None = None
    win_rate_bound: float | None = None
    prompts: int | None = None
    left_out: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heatmap:
    """Counts [correlation, length] between the edges `correlation` and `length`."""

    counts: tuple[tuple[int, ...], ...]
    correlation: tuple[float, ...]
    length: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthLeaning:
    """How much a reward follows length among the answers to one prompt; see `stats.length_bias`."""

    mean_correlation: float | None = None
    share_above: float | None = None
    slope: float | None = None
    prompts: int = 0
    skipped: int = 0
    heatmap: Heatmap


# ---- over training ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """What the answers watched at one step were worth; intervals over `n` answers."""

    step: int = 0
    n: int | None = None
    kl: float | None = None
    reward: float | None = None
    gold: float | None = None
    kl_ci95: Pair | None = None
    reward_ci95: Pair | None = None
    gold_ci95: Pair | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """Since which step a rule held, and the value there."""

    step: int
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingWarning:
    """A rule of the training monitor that fired, in its own words, with where it did, by seed."""

    rule: str
    limit: float | None = None
    sentence: str = ""
    measures: str = ""
    means: str = ""
    normal: str = ""
    fix: str = ""
    seeds: Mapping[str, Fired] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerGap:
    """How far the log-probs that an arm's rollouts were sampled with lay from the trainer's own, over `steps` steps of all seeds.

    `mean` and `largest` |difference| of a token in nats; `beyond_cap`, the share of tokens whose importance weight is over the
    method's cap (2 where it has none); `effective_share`, Kish's effective sample size over the number of tokens.
    """

    mean: float
    largest: float
    beyond_cap: float
    effective_share: float
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyEnd:
    """A limit of the user's that ended training at `step` `of` the planned ones."""

    step: int
    of: int
    sentence: str
    rule: str = ""
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationPoint:
    """The validation number of the weights after `step`."""

    step: int
    validation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StalenessSummary:
    """An arm on rollouts of older weights: `steps` and `proximal` as asked, the rest means over its optimizer steps and seeds.

    `age` in optimizer steps (the first steps have no older weights, later updates of a rollout make it older); `importance` the
    mean weight of a token, its probability by the policy over that by the sampler; `effective` the share of the tokens that a
    mean under these weights is worth; `clipped` the share whose weight a bound cuts; `kl` of the sampler to the policy, nats per
    token.
    """

    steps: int
    proximal: str
    age: float | None = None
    importance: float | None = None
    effective: float | None = None
    clipped: float | None = None
    kl: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointChoice:
    """Which weights a seed kept by which `rule`. `shared_prompts`: validation prompts that also judge, which should be none."""

    rule: str
    start: float | None = None
    points: tuple[ValidationPoint, ...] = ()
    chosen: int | None = None
    every: int | None = None
    prompts: int = 0
    shared_prompts: int | None = None

    @property
    def value(self) -> float | None:
        """The validation number of the weights that were kept."""
        return next((point.validation for point in self.points if point.step == self.chosen), None)

    @property
    def at_edge(self) -> bool:
        """Whether they were the last ones measured, so that more steps might have been better."""
        return self.chosen is not None and self.chosen == max((point.step for point in self.points), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPoint:
    """An arm's weights after `step`, judged on the held-out prompts against the baseline's final answers.

    `last` is the arm itself. `kept`: seeds whose validation chose this step, which the held-out prompts never do.
    """

    step: int
    win_rate: float | None = None
    ci95: Pair | None = None
    gold: float | None = None
    kl: float | None = None
    mean_length: float | None = None
    seeds: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()
    last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRate:
    """pass@k: the share of prompts of which one of `k` answers is right, estimated without bias from `answers` per prompt."""

    k: int
    rate: float
    ci95: Pair | None = None
    answers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedArm:
    """An arm in one more evaluation: its win rate against the baseline, or its accuracy in a task, and the `difference` to the
    baseline's. `p_holm`, `ci95_simultaneous` and the verdict share one correction with all contrasts with the baseline."""

    rate: float | None = None
    ci95: Pair | None = None
    difference: float | None = None
    ci95_difference: Pair | None = None
    ci95_simultaneous: Pair | None = None
    p_holm: float | None = None
    verdict: str = "no result"
    seeds: tuple[int, ...] = ()

    @property
    def verdict_ci95(self) -> Pair | None:
        """The interval of the difference that goes with the verdict."""
        return self.ci95_simultaneous or self.ci95_difference


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """One more evaluation: what was measured ("win rate" or a task's metric), by whom, on how many prompts."""

    measure: str
    judge: str | None = None
    n_prompts: int | None = None
    contrasts: int | None = None
    """How many contrasts share the correction: those of the comparison and of all evaluations."""
    arms: Mapping[str, EvaluatedArm] = field(default_factory=dict)


# ---- under other lengths ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldChange:
    """The gold score under a limit minus that under the training limit, paired by prompt and seed."""

    gold: float
    ci95: Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCell:
    """An arm under one completion limit."""

    win_rate: float
    ci95: Pair | None = None
    gold: float | None = None
    mean_length: float | None = None
    truncated: float | None = None
    seeds: tuple[int, ...] = ()
    change: GoldChange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRow:
    """One arm under every limit, None where nothing finished; `training` is the limit it was trained under."""

    arm: str
    method: str | None = None
    training: int | None = None
    cells: tuple[GridCell | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodGrid:
    """Mean win rates [training, inference] of a method that was trained under several limits."""

    training: tuple[int, ...]
    inference: tuple[int, ...]
    mean: tuple[tuple[float | None, ...], ...]
    best_inference: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthGrid:
    """Training length by inference length, in tokens."""

    inference: tuple[int, ...]
    rows: tuple[GridRow, ...]
    methods: Mapping[str, MethodGrid] = field(default_factory=dict)


# ---- how settings were chosen -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedArmSummary:
    """How an arm came by its settings; `changed` has those that are no longer the chosen ones, as they are now."""

    trials: int
    failed: int = 0
    trial: int | None = None
    settings: Mapping[str, Any]
    space: Mapping[str, str]
    value: float | None = None
    ci95: Pair | None = None
    as_given: float | None = None
    alike: int = 0
    edges: tuple[str, ...] = ()
    changed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningSummary:
    """How the arms were tuned. `shared_prompts`: prompts that chose settings and also judge, which should be none."""

    measure: str
    sampler: str
    seeds: tuple[int, ...]
    prompts: int
    steps: float = 1.0
    arms: Mapping[str, TunedArmSummary] = field(default_factory=dict)
    not_tuned: tuple[str, ...] = ()
    shared_prompts: int | None = None
