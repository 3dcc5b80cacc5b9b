"""Reward models on preference pairs: by category, by length, in RewardBench's forms, and several side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.stats import agreement_by_length, calibration, pair_metrics, reward_bench, soft_wilson, t_interval
from evenhand.stats.reward_bench import PRIOR_SETS, SECTIONS, reward_bench_intervals
from evenhand.types import Group, Scores

Scorer = Callable[[Sequence[Group]], list[Scores]]
CATEGORY_FIELDS = ("subset", "category", "source", "domain")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPairs:
    """Scores of preferred and rejected answers, one entry per pair, with lengths in characters and the pair's category."""

    chosen: tuple[float, ...]
    rejected: tuple[float, ...]
    chosen_chars: tuple[int, ...]
    rejected_chars: tuple[int, ...]
    category: tuple[str, ...]

    @property
    def margins(self) -> np.ndarray:
        return np.array(self.chosen) - np.array(self.rejected)

    def only(self, category: str) -> ScoredPairs:
        kept = [i for i, c in enumerate(self.category) if c == category]
        return ScoredPairs(**{name: tuple(getattr(self, name)[i] for i in kept) for name in self.__dataclass_fields__})


def category_of(group: Group, field: str | None = None) -> str:
    """The group's category: `field` of its prompt's meta, or the first of the usual names that is there."""
    names = (field,) if field else CATEGORY_FIELDS
    return next((str(group.prompt.meta[n]) for n in names if n in group.prompt.meta), "all")


def score_pairs(groups: Sequence[Group], scorer: Scorer, *, category: str | None = None) -> ScoredPairs:
    """Best against worst answer of each group by its own scores; groups without a preference are left out.

    An answer that could not be scored is an error: a reward model that leaves out hard pairs would look better than it is.
    """
    kept = [g for g in groups if len(g.scores) > 1 and max(g.scores) > min(g.scores)]
    if not kept:
        raise UserError("no row prefers one answer to another", where="reward model evaluation", fix="give preference pairs")
    rows = []
    for group, scored in zip(kept, scorer(kept), strict=True):
        best = max(range(len(group.scores)), key=lambda i: group.scores[i])
        worst = min(range(len(group.scores)), key=lambda i: group.scores[i])
        values = scored.values[best], scored.values[worst]
        if any(math.isnan(v) for v in values):
            raise UserError(
                "an answer could not be scored", where=f"prompt {group.prompt.id}", fix="use a scorer that fits these data"
            )
        rows.append(
            (*values, len(group.completions[best].text), len(group.completions[worst].text), category_of(group, category))
        )
    columns = [tuple(c) for c in zip(*rows, strict=True)]
    return ScoredPairs(**dict(zip(ScoredPairs.__dataclass_fields__, columns, strict=True)))


def report(pairs: ScoredPairs) -> dict[str, Any]:
    """Accuracy with its interval, log-loss, calibration, margins, agreement by length, and the same per category.

    `sections` and `overall` are RewardBench's when the categories are its subsets.
    """
    found = {**_metrics(pairs), "margins": margin_summary(pairs.margins)}
    found["calibration"] = [asdict(b) | {"high": _finite(b.high)} for b in calibration(pairs.margins)]
    lengths = (pairs.chosen_chars, pairs.rejected_chars)
    found["by_length"] = {k: asdict(b) for k, b in agreement_by_length(pairs.chosen, pairs.rejected, *lengths).items()}
    names = list(dict.fromkeys(pairs.category))
    if len(names) > 1:
        found["categories"] = {name: _metrics(pairs.only(name)) for name in names}
        found |= sections({name: (pairs.only(name).margins > 0).astype(float) for name in names})  # equal scores are wrong
    return found


def _metrics(pairs: ScoredPairs) -> dict[str, Any]:
    return asdict(pair_metrics(pairs.chosen, pairs.rejected, pairs.chosen_chars, pairs.rejected_chars))


def sections(right: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """RewardBench v1's sections that are complete, with intervals over pairs, when every category is one of its subsets.

    `right`: per category whether each pair was judged right, in [0, 1].
    """
    groups = {**{s: list(subsets) for s, subsets in SECTIONS.items()}, "Prior Sets": list(PRIOR_SETS)}
    if not all(any(name in subsets for subsets in groups.values()) for name in right):
        return {}
    whole = {n for subsets in groups.values() if all(s in right for s in subsets) for n in subsets}
    missing = [s for s, subsets in groups.items() if not all(n in right for n in subsets)]
    if not whole:
        return {"sections": {}, "incomplete": missing}
    accuracy = {n: float(right[n].mean()) for n in whole}
    scores = reward_bench(accuracy)
    by_section, overall = reward_bench_intervals(accuracy, {n: soft_wilson(right[n]) for n in whole})
    intervals = {"sections_ci95": {s: list(ends) for s, ends in by_section.items()}, "overall_ci95": list(overall)}
    return {"sections": scores.sections, "overall": scores.overall, **intervals, "incomplete": missing}


def margin_summary(margins: np.ndarray) -> dict[str, float]:
    """Quantiles of the score difference and the share of confident mistakes (margin below -1)."""
    low, middle, high = np.quantile(margins, (0.05, 0.5, 0.95))
    return {"q05": float(low), "median": float(middle), "q95": float(high), "confidently_wrong": float((margins < -1).mean())}


def side_by_side(groups: Sequence[Group], scorers: Mapping[str, Scorer]) -> dict[str, Any]:
    """Validation likelihood of several reward models on the same pairs: mean log sigma(margin) in nats, higher is better.

    The scorers may be a trained reward model (global), beta log pi (local), and DPO's beta (log pi - log pi_ref): all claim
    P(chosen preferred) = sigma(margin). `best_scale` is the factor on the margins that would maximise the likelihood and
    `at_best_scale` the likelihood there: a model that ranks well but is over-confident loses in one and not in the other.
    `difference` is the mean difference from the first, with its paired 95 % interval over pairs.
    """
    margins = {name: score_pairs(groups, scorer).margins for name, scorer in scorers.items()}
    likely = {name: -np.logaddexp(0.0, -m) for name, m in margins.items()}
    first = next(iter(likely.values()))
    rows = {}
    for name, values in likely.items():
        scale, best = best_scale(margins[name])
        gap = values - first
        rows[name] = {
            "log_likelihood": float(values.mean()), "accuracy": float(((margins[name] > 0) + 0.5 * (margins[name] == 0)).mean()),
            "best_scale": scale, "at_best_scale": best, "difference": float(gap.mean()),
            "ci95": list(t_interval(gap)) if len(gap) > 1 else None, "n": len(gap),
        }  # fmt: skip
    return rows


def best_scale(margins: np.ndarray) -> tuple[float, float]:
    """(c, mean log sigma(c margin)) with c in [1e-4, 1e4] the likeliest scale; the likelihood is concave in c."""
    from scipy.optimize import minimize_scalar

    loss = lambda log_c: float(np.logaddexp(0.0, -math.exp(log_c) * margins).mean())  # noqa: E731
    found = minimize_scalar(loss, bounds=(math.log(1e-4), math.log(1e4)), method="bounded")
    return math.exp(found.x), -float(found.fun)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
