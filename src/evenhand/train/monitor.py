"""Looks on while a run trains: says once what is worth saying, and ends a run that its user wanted ended.

Rules and their limits: `evenhand.train.rules`. A loss or gradient that is not finite is another matter, and always ends the run:
see `evenhand.train.nonfinite`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

from typing_extensions import override

from evenhand.stats.text import distinct_n
from evenhand.train import rules
from evenhand.train.rules import RULES, SAMPLES, History

WATCHED = "watched/"
"""Metrics whose names begin so are looked at by rules and written nowhere: see `logged`."""
WARNINGS = "warnings.json"
"""In a fit's artifact: every remark, in the order of their steps; an empty list where nothing was said."""
STOPPED = "stopped.json"
"""In a fit's artifact, only where `train.stop_when` ended it: the remark, and `of`, the steps that were planned."""
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A rule that fired: at which step, what it saw, and in words what that means and what to try."""

    rule: str
    step: int
    value: float
    limit: float
    sentence: str
    measures: str
    means: str
    normal: str
    fix: str

    @override
    def __str__(self) -> str:
        return f"step {self.step}: {self.sentence}: {self.means}. Normal: {self.normal}. Try: {self.fix}"


@dataclass(kw_only=True)
class Monitor:
    """`see` takes the metrics of each step in turn. Every rule speaks once; `stop` is set when a limit of the user's is passed.

    `stop_when` maps rules to the limits at which training ends; `silent` are rules that mean nothing for the method, and only
    serve as limits. Nothing here changes a number of the run: a stop only ends it, at a step that follows from the metrics alone.

    >>> monitor = Monitor(stop_when={"truncated": 0.9})
    >>> for step, share in enumerate((0.2, 0.6, 0.9, 0.9, 1.0), 1):
    ...     said = monitor.see(step, {"truncated": share})
    ...     print(step, [r.rule for r in said], monitor.stop and monitor.stop.step)
    1 [] None
    2 [] None
    3 ['truncated'] None
    4 [] None
    5 [] 5
    """

    stop_when: Mapping[str, float] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    history: History = field(default_factory=History)
    remarks: dict[str, Remark] = field(default_factory=dict)
    stop: Remark | None = None

    def see(self, step: int, metrics: Mapping[str, float]) -> list[Remark]:
        """What is new to say after `step`."""
        self.history.add({name: value for name, value in metrics.items() if name != "step"})
        new = {name: _remark(name, step, self.history) for name in RULES if name not in self.silent | self.remarks.keys()}
        found = {name: remark for name, remark in new.items() if remark is not None}
        self.remarks |= found
        stops = (_remark(name, step, self.history, limit) for name, limit in self.stop_when.items())
        self.stop = self.stop or next((stop for stop in stops if stop is not None), None)
        return list(found.values())

    def state_dict(self) -> dict[str, Any]:
        return {"history": rules.as_state(self.history), "remarks": {n: asdict(r) for n, r in self.remarks.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.history = rules.from_state(state["history"])
        self.remarks = {name: Remark(**remark) for name, remark in state["remarks"].items()}


def _remark(name: str, step: int, history: History, limit: float | None = None) -> Remark | None:
    rule = RULES[name]
    value = rule.fires(history, limit)
    if value is None:
        return None
    limit = rule.limit if limit is None else limit
    return Remark(
        rule=name, step=step, value=value, limit=limit, sentence=rule.sentence(value, limit),
        measures=rule.measures, means=rule.means, normal=rule.normal, fix=rule.fix,
    )  # fmt: skip


def logged(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics without those that are only watched.

    >>> logged({"loss": 1.0, "watched/clipped": 0.1})
    {'loss': 1.0}
    """
    return {name: value for name, value in metrics.items() if not name.startswith(WATCHED)}


def of_samples(texts: Sequence[str]) -> dict[str, float]:
    """What the sampled answers of one step say, as a metric; nothing where they hold no two words."""
    share = distinct_n(texts, 2)
    return {SAMPLES: share} if share == share else {}


def replay(metrics: Iterable[Row], samples: Iterable[Row] = (), silent: frozenset[str] = frozenset()) -> list[Remark]:
    """What a monitor would have said of a finished run, from its metrics.jsonl and samples.jsonl."""
    texts = {step: [row["completion"] for row in rows] for step, rows in groupby(samples, key=lambda row: row["step"])}
    monitor = Monitor(silent=silent)
    monitor.history.add(of_samples(texts.get(0, ())))
    for row in metrics:
        monitor.see(row["step"], {**row, **of_samples(texts.get(row["step"], ()))})
    return list(monitor.remarks.values())
