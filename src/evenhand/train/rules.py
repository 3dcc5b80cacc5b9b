"""What is worth saying while a run trains: small rules over the stream of its metrics, all in one table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FIRST, LAST = 10, 50
"""How many values of a metric a rule can look back on: its first ones and its last ones. More are never kept."""
SAMPLES = "watched/distinct"
"""Distinct word pairs among the sampled answers of a step (`train: {sample_every: ...}`), as a share of all pairs."""


@dataclass
class Track:
    """One metric so far: its first `FIRST` and last `LAST` values, and how many there were."""

    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    count: int = 0

    def add(self, value: float) -> None:
        self.count += 1
        if len(self.first) < FIRST:
            self.first.append(value)
        self.last = [*self.last[-LAST + 1 :], value]


class History(dict[str, Track]):
    """Metric -> its track. The two readings are None until there are enough values."""

    def add(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.setdefault(name, Track()).add(value)

    def start(self, name: str, n: int) -> float | None:
        """Mean of the first `n` values."""
        track = self.get(name)
        return statistics.fmean(track.first[:n]) if track is not None and track.count >= n else None

    def recent(self, name: str, n: int) -> float | None:
        """Mean of the last `n` values."""
        values = self.tail(name, n)
        return statistics.fmean(values) if values else None

    def tail(self, name: str, n: int) -> Sequence[float]:
        """The last `n` values; nothing before there are as many."""
        track = self.get(name)
        return track.last[-n:] if track is not None and track.count >= n else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorRule:
    """Fires when `value(history)` is above `limit` (below it, if `falls`); a value that is None cannot be told yet.

    `measures` says in words what the value is; `seen` is the sentence of a run where it fired, with `{value}` and `{limit}`;
    `means` what follows from it; `normal` where it is no fault; `fix` what to try.
    """

    name: str
    value: Callable[[History], float | None]
    limit: float
    measures: str
    seen: str
    means: str
    normal: str
    fix: str
    falls: bool = False

    def fires(self, history: History, limit: float | None = None) -> float | None:
        """The value, if it is beyond the limit (the rule's own, or another); else None."""
        value, limit = self.value(history), self.limit if limit is None else limit
        if value is None:
            return None
        return value if (value < limit if self.falls else value > limit) else None

    def sentence(self, value: float, limit: float) -> str:
        """What is said to a person."""
        return self.seen.format(value=_figure(value), limit=_figure(limit))


def _figure(value: float) -> str:
    """Three digits; from a thousand on with an exponent.

    >>> _figure(0.93333), _figure(1234.5), _figure(0.0)
    ('0.933', '1.23e+03', '0')
    """
    return f"{value:.3g}"


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None or below == 0 else above / below


def _kl_per_token(h: History) -> float | None:
    return _ratio(h.recent("kl", 3), h.recent("length", 3))


def _entropy_left(h: History) -> float | None:
    return _ratio(h.recent("entropy", 3), h.start("entropy", 1))


def _chosen_fall(h: History) -> float | None:
    """How much further below zero the chosen log-prob lies than at the start, as a share; both ends are means of ten steps."""
    share = _ratio(h.recent("chosen_logp", 10), h.start("chosen_logp", 10))
    return None if share is None else share - 1.0


def _off_ratio(h: History) -> float | None:
    """Distance of the mean probability ratio from 1: to the old log-probs where the trainer read them, else to the sampler's.

    Only of rollouts, which record a length: answers from a file were sampled by someone else.
    """
    if "length" not in h:
        return None
    found = h.recent("ratio", 5) if "ratio" in h else h.recent("watched/ratio", 5)
    return None if found is None else abs(found - 1.0)


def _length_change(h: History) -> float | None:
    factor = _ratio(h.recent("length", 5), h.start("length", 3))
    return None if not factor else max(factor, 1 / factor)


def _spike(h: History) -> float | None:
    """The last gradient norm over the median of those before it, once there are ten."""
    before = h["grad_norm"].last[:-1] if "grad_norm" in h else []
    return _ratio(h["grad_norm"].last[-1], statistics.median(before)) if len(before) >= 10 else None


SUPERVISED = ("accuracy", "nll", "desirable_ratio")
"""A method that records one of these has a loss that falls when it learns; that of a policy gradient need not move."""


def _loss_moved(h: History) -> float | None:
    """The largest relative change of the loss over the last twenty steps against the very first one."""
    tail = h.tail("loss", 20)
    if not tail or not any(name in h for name in SUPERVISED):
        return None
    start = h["loss"].first[0]
    return max(abs(v - start) for v in tail) / max(1.0, abs(start))


def _gradient(h: History) -> float | None:
    return max(h.tail("grad_norm", 10), default=None)


def _distinct_left(h: History) -> float | None:
    return _ratio(h.recent(SAMPLES, 1), h.start(SAMPLES, 1)) if SAMPLES in h and h[SAMPLES].count > 1 else None


def _mean(name: str, n: int) -> Callable[[History], float | None]:
    return lambda h: h.recent(name, n)


_ALL = (
    MonitorRule(
        name="kl", value=_mean("kl", 3), limit=50.0,
        measures="KL to the start, nats per answer, mean of 3 steps",
        seen="the policy is {value} nats per answer from its start (limit {limit})",
        means="it has left the region in which the reward was learned: a reward that still rises may be one that is exploited",
        normal="answers of hundreds of tokens, and checkers that cannot be fooled, reach it without harm",
        fix="raise `kl`, lower the learning rate, or train fewer steps; look at the judge's score against KL",
    ),
    MonitorRule(
        name="kl_per_token", value=_kl_per_token, limit=0.5,
        measures="KL to the start, nats per token of the answer, mean of 3 steps",
        seen="the policy is {value} nats per token from its start (limit {limit})",
        means="most of its answers are ones that the start would hardly ever give",
        normal="0.1 to 0.3 is usual at the end of a healthy run",
        fix="raise `kl`, or lower the learning rate (try a quarter)",
    ),
    MonitorRule(
        name="entropy_below", value=_entropy_left, limit=0.15, falls=True,
        measures="entropy of the sampled tokens, mean of 3 steps, as a share of its first value",
        seen="the entropy is {value} of its first value (limit {limit})",
        means="the policy gives nearly one answer to each prompt; what it does not sample any more it cannot learn",
        normal="a slow fall to a quarter, in tasks with one right answer",
        fix="lower the learning rate, raise `kl` or `entropy`, or sample at a higher temperature",
    ),
    MonitorRule(
        name="truncated", value=_mean("truncated", 3), limit=0.5,
        measures="share of sampled answers cut at the token limit, mean of 3 steps",
        seen="{value} of the answers are cut at the token limit (limit {limit})",
        means="answers without an end are scored and learned; the limit decides the length, and a checker finds no result",
        normal="never",
        fix="raise `lengths.completion`, set `mask_truncated`, or penalise answers that do not end (reward `unfinished`)",
    ),
    MonitorRule(
        name="flat", value=_mean("flat", 10), limit=0.95,
        measures="share of groups whose rewards are all equal, mean of 10 steps",
        seen="in {value} of the groups all answers have the same reward, for 10 steps (limit {limit})",
        means="a group without a difference says nothing about which answer is better: nothing is left to learn",
        normal="at the end of an easy task",
        fix="harder prompts, a finer reward, more completions per prompt; at the very start, look at the reward with `doctor`",
    ),
    MonitorRule(
        name="unscored", value=_mean("watched/unscored", 3), limit=0.5,
        measures="share of answers that the reward could not score, mean of 3 steps",
        seen="the reward could not score {value} of the answers (limit {limit})",
        means="they are sampled and paid for, and take no part in training",
        normal="never",
        fix="look at samples.jsonl for what the reward refuses",
    ),
    MonitorRule(
        name="duplicates", value=_mean("watched/duplicates", 3), limit=0.75,
        measures="share of sampled answers that repeat an earlier one of their group, mean of 3 steps",
        seen="{value} of the answers repeat another one to the same prompt (limit {limit})",
        means="the same few answers are compared with each other: most of the sampling is wasted",
        normal="where right answers are a few tokens long",
        fix="a higher sampling temperature, an entropy bonus, a lower learning rate",
    ),
    MonitorRule(
        name="distinct_below", value=_distinct_left, limit=0.5, falls=True,
        measures="distinct word pairs in the sampled answers of `sample_every`, as a share of the start's",
        seen="the sampled answers have {value} of the start's distinct word pairs (limit {limit})",
        means="answers repeat themselves or each other: text is degenerating",
        normal="never, unless the task asks for one form of answer",
        fix="read samples.jsonl; lower the learning rate, or stop earlier (`keep_checkpoint: best`)",
    ),
    MonitorRule(
        name="length_change", value=_length_change, limit=2.0,
        measures="mean answer length (5 steps) over that of the first 3 steps, or its inverse, whichever is larger",
        seen="answers have changed their length by a factor of {value} (limit {limit})",
        means="the reward may pay for length itself rather than for better answers; compare at equal length",
        normal="longer reasoning under an exact checker",
        fix="a `length_penalty`, or a reward model without a leaning to length (see its card)",
    ),
    MonitorRule(
        name="chosen_fall", value=_chosen_fall, limit=0.5,
        measures="fall of the chosen answers' log-prob from the first 10 steps to the last 10, as a share of where it began",
        seen="the log-prob of the chosen answers has fallen by {value} of where it began (limit {limit})",
        means="probability flows to answers that are in no pair; beyond this level free answers begin to degenerate",
        normal="a smaller fall is: DPO and its kin lower both sides as long as the rejected one falls faster",
        fix="a larger `beta`, a lower learning rate, fewer epochs, or a likelihood term (`rpo`, `orpo`)",
    ),
    MonitorRule(
        name="clipped", value=_mean("watched/clipped", 5), limit=0.3,
        measures="share of tokens whose ratio is outside the clipping range, mean of 5 steps",
        seen="the clip cuts off {value} of the tokens (limit {limit})",
        means="the policy moves further within one rollout than the method trusts; much of the gradient is thrown away",
        normal="up to about 0.2 in the last of many updates on one rollout",
        fix="fewer `updates` or epochs per rollout, or a lower learning rate",
    ),
    MonitorRule(
        name="ratio_off", value=_off_ratio, limit=0.1,
        measures="distance from 1 of the mean probability ratio to the sampled policy, mean of 5 steps",
        seen="the mean probability ratio is {value} away from 1 (limit {limit})",
        means="trainer and sampler disagree about the sampled tokens: the gradient is that of another policy",
        normal="with top_p, top_k or min_p cutting tokens off, with `staleness`, and after many updates on one rollout",
        fix="sample without top_p, top_k, min_p, set `importance: 2`, or use fewer `updates`; check the precision of the sampler",
    ),
    MonitorRule(
        name="grad_spike", value=_spike, limit=20.0,
        measures="the gradient norm over the median of up to 49 steps before it (at least 10)",
        seen="the gradient norm is {value} times its usual size (limit {limit})",
        means="one step is unlike the others: a bad row, or the beginning of divergence; `clip` bounds what it can do",
        normal="once, if the norms after it are as before",
        fix="look at what was trained in this step; lower the learning rate or `clip` if it happens again",
    ),
    MonitorRule(
        name="stuck", value=_loss_moved, limit=1e-6, falls=True,
        measures="the largest change of the loss from its very first value over the last 20 steps, relative",
        seen="the loss has stayed at its start value for 20 steps (it moved by {value})",
        means="nothing is learned (a pair loss at ln 2: the two sides are never told apart)",
        normal="never; a slow warm-up moves it by more",
        fix="check that chosen and rejected differ after truncation, that the learning rate is not 0, and `doctor`",
    ),
    MonitorRule(
        name="no_gradient", value=_gradient, limit=1e-12, falls=True,
        measures="the largest gradient norm of the last 10 steps",
        seen="the gradient has been zero for 10 steps",
        means="the weights do not move but for weight decay",
        normal="for methods that sample, when every group is flat",
        fix="check masks and labels with `doctor`: rows without a counted token, pairs that tie, advantages that are all zero",
    ),
)  # fmt: skip
RULES: dict[str, MonitorRule] = {rule.name: rule for rule in _ALL}
"""By name; the name is also the key under `train: {stop_when: ...}`."""


def table() -> str:
    """The rules as a Markdown table, for the page on monitoring."""
    head = "| name | what is measured | limit | normal | what to try |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| `{r.name}` | {r.measures} | {'below' if r.falls else 'above'} {r.limit:g} | {r.normal} | {r.fix} |\n" for r in _ALL
    )


def as_state(history: History) -> dict[str, Any]:
    """The history as JSON, for a checkpoint."""
    return {name: {"first": t.first, "last": t.last, "count": t.count} for name, t in history.items()}


def from_state(state: Mapping[str, Mapping[str, Any]]) -> History:
    """The inverse of `as_state`."""
    return History({name: Track(list(t["first"]), list(t["last"]), t["count"]) for name, t in state.items()})
