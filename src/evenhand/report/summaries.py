"""The tables of the page whose columns depend on what is known, and the experiment as it was run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import yaml

from evenhand.configfile.begun import PLACE
from evenhand.report.formatting import MISSING, fixed, percent, rate
from evenhand.report.summary import Summary
from evenhand.results.record import ArmResult, ControlledWinRate, MixedModel
from evenhand.stats.length import form_meaning

NOT_SCORED = "not scored"
"""Of a reward model that failed, or could score none of the answers."""


@dataclass(frozen=True, slots=True)
class Column:
    """An optional column of a table, shown when at least one row has the value."""

    key: str
    title: str
    shown: Callable[[Any], str]
    meaning: str = ""

    def of(self, result: ArmResult) -> Any:
        """The value of an arm; None where it has none. A key with a dot looks into a mapping."""
        field, _, inner = self.key.partition(".")
        value = getattr(result, field)
        return value.get(inner) if inner else value

    def cell(self, result: ArmResult) -> str:
        """The value in words."""
        return self.shown(self.of(result))


def _scored(value: Any) -> str:
    return NOT_SCORED if value is None else fixed(value)


def _length_controlled(value: ControlledWinRate | None) -> str:
    if value is None:
        return MISSING
    if value.win_rate is None:
        return "refused"
    return rate(value.win_rate, value.ci95)


def arm_notes(summary: Summary) -> list[tuple[str, str]]:
    """(arm, note) of everything the statistics say that a number cannot say, the length-controlled one's form included."""
    found = []
    for arm in summary.arms:
        even = arm.even
        form = f"at equal length {form_meaning(even.form)} ({even.form})" if even.form else ""
        form += f", interval over {even.scope}" if form and even.scope else ""
        note = f"at equal length: {even.note}" if even.note else ""
        found += [(arm.name, text) for text in (arm.result.note, _mixed_note(arm.result.mixed_model), form, note) if text]
    return found


def _mixed_note(fit: MixedModel | None) -> str:
    """Which of the two views of a win rate is shown."""
    if fit is None:
        return ""
    other = rate(fit.win_rate, fit.ci95)
    if fit.shown:
        seeds = f"seeds differ by {fixed(fit.seed_sd, 1)} logits"
        return f"the interval reaches as far as the binomial mixed model's, {other}: {seeds}"
    return f"a binomial mixed model has {other}, mostly by its prior at so few seeds; shown is the two-way interval"


VERDICT_COLUMNS = (
    Column("length_controlled", "At equal length", _length_controlled,
           "the win rate if both answers were equally long, with its 95% interval"),
    Column("ties", "Ties", percent, "share of prompts on which neither answer was preferred"),
)  # fmt: skip
_one = partial(fixed, digits=1)
ANSWER_COLUMNS = (
    Column("gold", "Gold score", fixed, "mean score by the judge"),
    Column("reward", "Own reward", fixed, "mean over these answers of the reward that the arm itself trained on"),
    Column("kl", "KL", _one,
           "distance from the start in nats per sequence, estimated from these answers: near 0 it may fall below"),
    Column("mean_length", "Length", _one, "mean answer length in tokens"),
    Column("distinct_2", "Distinct-2", fixed, "share of distinct word pairs, low when answers repeat themselves"),
    Column("self_overlap", "Overlap", fixed, "shared word pairs of the seeds' answers to one prompt, 1 when they are the same"),
    Column("entropy", "Entropy", fixed, "nats per token of the sampler, low when one answer is all there is"),
    Column("refusal", "Refusals", percent, "share of answers that decline"),
    Column("truncated", "Cut", percent, "share of answers cut at the token limit"),
)  # fmt: skip


def shown_columns(columns: Sequence[Column], summary: Summary) -> list[Column]:
    """Those of `columns` for which some arm has a value."""
    return [column for column in columns if any(column.of(arm.result) is not None for arm in summary.arms)]


def answer_columns(summary: Summary) -> list[Column]:
    """How the arms answer: what is known of it, and the score by every reward model of the run behind the arms' own rewards."""
    names = dict.fromkeys(name for arm in summary.arms for name in arm.result.proxies)
    models = [Column(f"proxies.{n}", f"By {n}", _scored, f"mean score by the reward model {n}") for n in names]
    at = next(i for i, column in enumerate(ANSWER_COLUMNS) if column.key == "reward") + 1
    return [*shown_columns(ANSWER_COLUMNS[:at], summary), *models, *shown_columns(ANSWER_COLUMNS[at:], summary)]


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
