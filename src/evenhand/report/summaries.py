"""The tables and cards of the page: optional columns, the judge, reward models, budgets, the experiment as it was run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import yaml

from evenhand.configfile.begun import PLACE
from evenhand.report.formatting import MISSING, amount, fixed, interval, is_number, percent, significant
from evenhand.report.summary import ArmRow, Summary
from evenhand.results.record import ArmResult, ControlledWinRate, MixedModel
from evenhand.results.record_judge import JudgeSummary
from evenhand.results.record_parts import PassRate, RewardModelSummary
from evenhand.stats.length import form_meaning

NOT_SCORED = "not scored"
"""Of a reward model that failed, or could score none of the answers."""


@dataclass(frozen=True, slots=True)
class Column:
    """An optional column of the verdict table, shown when at least one arm has the value."""

    key: str
    title: str
    meaning: str
    shown: Callable[[Any], str]

    def of(self, result: ArmResult) -> Any:
        """The value of an arm; None where it has none. A key with a dot looks into a mapping."""
        field, _, inner = self.key.partition(".")
        value = getattr(result, field)
        return value.get(inner) if inner else value


def _one(value: Any) -> str:
    return fixed(value, 1)


def _two(value: Any) -> str:
    return fixed(value, 2)


def _scored(value: Any) -> str:
    return NOT_SCORED if value is None else fixed(value, 2)


def _length_controlled(value: ControlledWinRate | None) -> str:
    if value is None:
        return MISSING
    if value.win_rate is None:
        return "refused"
    return f"{percent(value.win_rate)} ({interval(value.ci95)})" if value.ci95 is not None else percent(value.win_rate)


def arm_notes(summary: Summary) -> list[tuple[str, str]]:
    """(arm, note) of everything the statistics say that a number cannot say, the length-controlled one's form included."""
    found = []
    for arm in summary.arms:
        even = arm.result.length_controlled or ControlledWinRate()
        form = f"at equal length {form_meaning(even.form)} ({even.form})" if even.form else ""
        form += f", interval over {even.scope}" if form and even.scope else ""
        note = f"at equal length: {even.note}" if even.note else ""
        found += [(arm.name, text) for text in (arm.result.note, _mixed_note(arm.result.mixed_model), form, note) if text]
    return found


def _mixed_note(fit: MixedModel | None) -> str:
    """Which of the two views of a win rate is shown."""
    if fit is None:
        return ""
    other = f"{percent(fit.win_rate)} ({interval(fit.ci95)})"
    if fit.shown:
        seeds = f"seeds differ by {fixed(fit.seed_sd, 1)} logits"
        return f"the interval reaches as far as the binomial mixed model's, {other}: {seeds}"
    return f"a binomial mixed model has {other}, mostly by its prior at so few seeds; shown is the two-way interval"


VERDICT_COLUMNS = (
    Column(
        "length_controlled",
        "At equal length",
        "the win rate if both answers were equally long, with its 95% interval",
        _length_controlled,
    ),
    Column("ties", "Ties", "share of prompts on which neither answer was preferred", percent),
)
ANSWER_COLUMNS = (
    Column("gold", "Gold score", "mean score by the judge", _two),
    Column("reward", "Own reward", "mean over these answers of the reward that the arm itself trained on", _two),
    Column(
        "kl", "KL", "distance from the start in nats per sequence, estimated from these answers: near 0 it may fall below", _one
    ),
    Column("mean_length", "Length", "mean answer length in tokens", _one),
    Column("distinct_2", "Distinct-2", "share of distinct word pairs, low when answers repeat themselves", _two),
    Column("self_overlap", "Overlap", "shared word pairs of the seeds' answers to one prompt, 1 when they are the same", _two),
    Column("entropy", "Entropy", "nats per token of the sampler, low when one answer is all there is", _two),
    Column("refusal", "Refusals", "share of answers that decline", percent),
    Column("truncated", "Cut", "share of answers cut at the token limit", percent),
)


def shown_columns(columns: Sequence[Column], summary: Summary) -> list[Column]:
    """Those of `columns` for which some arm has a value."""
    return [column for column in columns if any(column.of(arm.result) is not None for arm in summary.arms)]


def answer_columns(summary: Summary) -> list[Column]:
    """How the arms answer: what is known of it, and the score by every reward model of the run behind the arms' own rewards."""
    names = dict.fromkeys(name for arm in summary.arms for name in arm.result.proxies)
    models = [Column(f"proxies.{n}", f"By {n}", f"mean score by the reward model {n}", _scored) for n in names]
    at = next(i for i, column in enumerate(ANSWER_COLUMNS) if column.key == "reward") + 1
    return [*shown_columns(ANSWER_COLUMNS[:at], summary), *models, *shown_columns(ANSWER_COLUMNS[at:], summary)]


def pass_rates(summary: Summary) -> list[tuple[ArmRow, tuple[PassRate, ...]]]:
    """pass@k of the arms that have it, in the order of the table."""
    return [(arm, arm.result.pass_at) for arm in summary.ranked if arm.result.pass_at]


_JUDGE: dict[str, tuple[str, Callable[[Any], str]]] = {
    "name": ("Judge", str),
    "kind": ("Kind of judge", str),
    "invalid": ("Unusable verdicts", percent),
    "consistency": ("Same verdict in both orders", percent),
    "p_first": ("Prefers the first answer", percent),
    "ties": ("Ties", percent),
    "tie": ("Scores this close tie", significant),
    "n": ("Pairs judged", amount),
    "identical": ("Pairs with identical answers", percent),
    "empty": ("Pairs with an empty answer", percent),
    "mass": ("Probability on the verdict's words", percent),
    "low_mass": ("Verdicts with less than 90% on them", percent),
    "win_rate_longer": ("Win rate where the arm's answer is longer", percent),
    "win_rate_not_longer": ("Win rate where it is not", percent),
    "attempts": ("Questions asked", amount),
    "cost_usd": ("Cost in dollars", lambda value: fixed(value, 4)),
    "template": ("Judge template", str),
    "template_sha": ("Its hash", str),
    "verdict": ("Verdicts are read from", str),
    "by": ("A pair is settled by", lambda rule: f"the {rule} of the judges"),
    "repeats": ("Times each pair was judged", amount),
    "repeat_sd": ("Its own spread on one pair (sd)", lambda value: fixed(value, 2)),
    "repeat_share": ("Share of the variance over prompts that is its own", percent),
}


def judge_facts(judge: JudgeSummary | None) -> list[tuple[str, str]]:
    """(label, value) of every plain value that the results give about the judge."""
    values = {f.name: getattr(judge, f.name) for f in fields(judge)} if judge is not None else {}
    facts = []
    for key, value in values.items():
        label, shown = _JUDGE.get(key, (key.replace("_", " ").capitalize(), _plain))
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            facts.append((label, shown(value)))
    return facts


def judge_warnings(judge: JudgeSummary | None) -> list[str]:
    """Signs that the judge itself is unreliable: it contradicts itself when the order is swapped, or gives no usable verdict."""
    found: list[str] = []
    consistency, invalid = (judge.consistency, judge.invalid) if judge is not None else (None, None)
    if consistency is not None and consistency < 0.6:
        found.append(
            f"The judge agrees with itself in only {percent(consistency, 0)} of cases when the order of answers is swapped."
        )
    if invalid is not None and invalid > 0.05:
        found.append(f"{percent(invalid, 0)} of the judge's verdicts could not be used.")
    return found


def _plain(value: Any) -> str:
    return significant(value) if is_number(value) else str(value)


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a card, with what it means."""

    label: str
    value: str
    reading: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """Places on the accuracy bar, in per cent of its width; `start` is the accuracy at its left end. None = not known."""

    start: float
    mark: float
    chance: float
    low: float | None
    high: float | None
    ceiling: float | None


def _gauge(accuracy: float, low: float | None, high: float | None, ceiling: float | None) -> Gauge:
    """Accuracies below 40% are rare, so the bar starts there unless one needs the room."""
    start = 0.4 if min(accuracy, 1.0 if low is None else low) >= 0.4 else 0.0

    def place(share: float | None) -> float | None:
        return round(100 * (share - start) / (1 - start), 2) if share is not None else None

    return Gauge(
        start=start,
        mark=place(accuracy) or 0.0,
        chance=place(0.5) or 0.0,
        low=place(low),
        high=place(high),
        ceiling=place(ceiling),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModelCard:
    """How good a reward model is on held-out pairs; `gauge` is None without an accuracy."""

    name: str
    gauge: Gauge | None
    measures: tuple[Measure, ...]
    warnings: tuple[str, ...]


def reward_model_cards(models: Mapping[str, RewardModelSummary]) -> list[RewardModelCard]:
    """A card per reward model in the results."""
    return [_reward_model(name, found) for name, found in models.items()]


def _reward_model(name: str, m: RewardModelSummary) -> RewardModelCard:
    low, high = m.ci95 or (None, None)
    known = (
        ("Accuracy", m.accuracy, percent(m.accuracy), f"95% interval {interval(m.ci95)}; 50% is guessing"),
        ("Label ceiling", m.label_ceiling, percent(m.label_ceiling), "the best accuracy that these noisy labels allow"),
        ("Log-loss", m.log_loss, fixed(m.log_loss, 3), "0.693 is guessing; lower is better"),
        ("Mean margin", m.mean_margin, fixed(m.mean_margin, 2), "score of chosen minus score of rejected"),
        ("Calibration error", m.ece, percent(m.ece), "gap between its stated and its actual certainty"),
        ("Score and length", m.length_correlation, fixed(m.length_correlation, 2), "correlation; near 0 is good"),
        ("Pairs", m.n, amount(m.n), "held-out pairs that these numbers rest on"),
    )
    return RewardModelCard(
        name=name,
        gauge=_gauge(m.accuracy, low, high, m.label_ceiling) if m.accuracy is not None else None,
        measures=tuple(Measure(label, shown, reading) for label, value, shown, reading in known if value is not None),
        warnings=tuple(_warnings(low, m.length_correlation)),
    )


def _warnings(low: float | None, length_correlation: float | None) -> list[str]:
    """The two faults that spoil every method trained on a reward model (thresholds as in the preflight checks)."""
    found = []
    if low is not None and low <= 0.5:
        found.append("Its interval includes 50%: it cannot be told from guessing, so rewards from it mean little.")
    if length_correlation is not None and abs(length_correlation) > 0.3:
        side = "longer" if length_correlation > 0 else "shorter"
        found.append(
            f"It leans on length: {side} answers score higher (correlation {fixed(length_correlation, 2)}, warning from 0.3)."
        )
    return found


@dataclass(frozen=True, slots=True)
class Block:
    """A part of experiment.json: a table (with a `head` when it is a list of records), or anything longer as YAML text."""

    title: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    text: str = ""


_TITLES = {"given": "Configuration as given", "effective": "Configuration in effect", "versions": "Versions", "hashes": "Hashes"}
_ORDER = ("effective", "given", "versions", "hashes")


def experiment_blocks(experiment: Mapping[str, Any]) -> list[Block]:
    """Every part of experiment.json that says something, exactly; the known ones first."""
    shown = {key: value for key, value in experiment.items() if key != PLACE}
    single = {key: value for key, value in shown.items() if not isinstance(value, Mapping | list)}
    keys = [key for key in (*_ORDER, *shown) if shown.get(key) and key not in single]
    blocks = [_block(_TITLES.get(key, key.replace("_", " ").capitalize()), shown[key]) for key in dict.fromkeys(keys)]
    return [*blocks, _block("Run", single)] if single else blocks


def _block(title: str, value: Mapping[str, Any] | list[Any]) -> Block:
    if isinstance(value, Mapping) and all(not isinstance(item, Mapping | list) for item in value.values()):
        return Block(title, rows=tuple((str(key), _exact(item)) for key, item in value.items()))
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        head = tuple(dict.fromkeys(key for item in value for key in item))
        return Block(title, head=head, rows=tuple(tuple(_exact(item.get(key)) for key in head) for item in value))
    return Block(title, text=yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110))


def _exact(value: Any) -> str:
    if isinstance(value, str) or value is None:
        return value or ""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).removesuffix("...\n").strip()
