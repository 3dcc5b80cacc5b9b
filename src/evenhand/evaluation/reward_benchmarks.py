"""Reward-model benchmarks in their own formats: RewardBench 2, RM-Bench and JudgeBench."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.evaluation.place_bound import refuse_place_bound
from evenhand.evaluation.readers import Row, field
from evenhand.seeding import rng
from evenhand.stats import reward_bench_2, rm_bench, soft_wilson, ties_score, wilson
from evenhand.stats.reward_bench import FOUR_WAY, RMBench, TiesPrompt, four_way_correct, weighted_interval
from evenhand.types import Completion, Group, Message, Prompt, Scores

Located = Sequence[tuple[str, Row]]
AnswerScorer = Callable[[str, Sequence[str]], Sequence[float]]
"""(prompt, answers) -> a score per answer."""
READINGS = ("easy", "normal", "hard", "average")
TIES_DRAWS = 1000
STYLES = ("concise", "detailed", "markdown")
_SAFETY = "safety-"
_JUDGE_BENCH = {"mmlu-pro": "Knowledge", "livebench-reasoning": "Reasoning", "livebench-math": "Math", "livecodebench": "Coding"}


def kind_of(row: Mapping[str, Any]) -> str | None:
    """Which benchmark's row this is, by its fields; None for plain pairs."""
    if {"response_A", "response_B", "label", "question"} <= row.keys():
        return "JudgeBench"
    if not all(_texts(row.get(k)) for k in ("chosen", "rejected")):
        return None
    if "domain" in row and "subset" not in row:
        return "RM-Bench"
    return "RewardBench 2" if {"id", "subset"} <= row.keys() else None


def _texts(value: Any) -> bool:
    """Lists of whole answers, not of messages."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def report(kind: str, rows: Located, score: AnswerScorer) -> dict[str, Any]:
    """The benchmark's own numbers for a reward that scores answers."""
    return {"RewardBench 2": reward_bench_2_report, "RM-Bench": rm_bench_report, "JudgeBench": judge_bench_rewards}[kind](
        rows, score
    )


def answer_scorer(scorer: Callable[[Sequence[Group]], list[Scores]]) -> AnswerScorer:
    """A reward over groups as one over texts."""

    def score(prompt: str, answers: Sequence[str]) -> tuple[float, ...]:
        asked = Prompt(content=(Message("user", prompt),))
        completions = tuple(Completion(content=(Message("assistant", a),)) for a in answers)
        values = scorer([Group(prompt=asked, completions=completions)])[0].values
        if any(v != v for v in values):
            raise UserError(
                "an answer could not be scored", where=f"prompt {prompt[:40]!r}", fix="use a scorer that fits these data"
            )
        return values

    return score


def reward_bench_2_report(rows: Located, score: AnswerScorer) -> dict[str, Any]:
    """RewardBench 2 from its rows (`id`, `prompt`, `chosen` and `rejected` lists, `subset`).

    Four-way subsets: the single chosen answer must be the highest (a share of ties for the top). Ties: pairs of prompts "ref:k"
    and "tied:k". Subsets that are absent leave `overall` out.
    """
    right: dict[str, list[float]] = {}
    ties: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for where, row in rows:
        subset, (good, bad) = str(field(row, "subset", where)), _scored(row, where, score)
        if subset == "Ties":
            kind, _, number = str(field(row, "id", where)).partition(":")
            ties.setdefault(number, {})[kind] = (good, bad)
        else:
            right.setdefault(subset, []).append(four_way_correct([*good, *bad], 0))
    accuracy = {name: float(np.mean(values)) for name, values in right.items()}
    ends: dict[str, Any] = {name: soft_wilson(values) for name, values in right.items()}
    found: dict[str, Any] = {"subsets": accuracy, "ci95": ends, "n": {name: len(values) for name, values in right.items()}}
    whole = [TiesPrompt(*pair["ref"], *pair["tied"]) for pair in ties.values() if {"ref", "tied"} <= pair.keys()]
    if ties:
        found["ties_left_out"] = len(ties) - len(whole)
    if whole:
        found["subsets"] = {**accuracy, "Ties": ties_score(whole)}
        found["n"]["Ties"], ends["Ties"] = len(whole), _ties_interval(whole)
    if whole and set(accuracy) == set(FOUR_WAY):
        found["overall"] = reward_bench_2(accuracy, ties_score(whole)).overall
        if ends["Ties"] is not None:
            found["overall_ci95"] = weighted_interval([(1, found["subsets"][name], ends[name]) for name in found["subsets"]])
    return found


def _ties_interval(prompts: Sequence[TiesPrompt]) -> tuple[float, float] | None:
    """A bootstrap over the prompts: the Ties score is no mean. None for a single prompt."""
    if len(prompts) < 2:
        return None
    draw, n = rng("RewardBench 2 ties", len(prompts)), len(prompts)
    found = [ties_score([prompts[i] for i in draw.integers(0, n, n)]) for _ in range(TIES_DRAWS)]
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def rm_bench_report(rows: Located, score: AnswerScorer) -> dict[str, Any]:
    """RM-Bench from its rows (`prompt`, `chosen` and `rejected` in three styles, `domain`): easy, normal, hard by domain.

    The two safety domains are averaged into one; `overall` is the mean over the four domains, and absent when one is.
    """
    scored: dict[str, list[tuple[list[float], list[float]]]] = {}
    for where, row in rows:
        if any(len(row[k]) != len(STYLES) for k in ("chosen", "rejected")):
            raise UserError("needs three answers on each side", where=where, fix=f"in the styles {', '.join(STYLES)}")
        scored.setdefault(str(field(row, "domain", where)), []).append(_scored(row, where, score))
    parts = {name: rm_bench(*(np.array(side) for side in zip(*own, strict=True))) for name, own in scored.items()}
    ends = {name: _readings_ci95(own) for name, own in scored.items()}
    found: dict[str, Any] = {
        "domains": {
            n: asdict(p) | {"average": p.average, "ci95": ends[n], "n": len(scored[n])} for n, p in parts.items()
        }
    }  # fmt: skip
    safety = [p for name, p in parts.items() if name.startswith(_SAFETY)]
    whole = {name: p for name, p in parts.items() if not name.startswith(_SAFETY)}
    readings = {name: (p.easy, p.normal, p.hard, p.average) for name, p in whole.items()}
    if len(safety) == 2:
        readings["safety"] = tuple(np.mean([(p.easy, p.normal, p.hard, p.average) for p in safety], axis=0).tolist())
    if set(readings) == {"chat", "code", "math", "safety"}:
        means = np.mean(list(readings.values()), axis=0).tolist()
        found["overall"] = dict(zip(READINGS, means, strict=True))
        found["overall_ci95"] = {r: _over_domains(r, parts, ends) for r in READINGS}
    return found


def _readings_ci95(scored: Sequence[tuple[list[float], list[float]]]) -> dict[str, tuple[float, float]]:
    """Intervals of easy, normal, hard and average over prompts, whose nine comparisons belong together."""
    each = [rm_bench(np.array([good]), np.array([bad])) for good, bad in scored]
    return {name: soft_wilson([getattr(one, name) for one in each]) for name in READINGS}


def _over_domains(reading: str, parts: Mapping[str, RMBench], ends: Mapping[str, Mapping[str, Any]]) -> tuple[float, float]:
    """Of the mean over four domains, the two of safety having half a share each."""
    weights = {name: 0.5 if name.startswith(_SAFETY) else 1.0 for name in parts}
    return weighted_interval([(weights[n], getattr(p, reading), ends[n][reading]) for n, p in parts.items()])


def _scored(row: Row, where: str, score: AnswerScorer) -> tuple[list[float], list[float]]:
    chosen, rejected = list(field(row, "chosen", where)), list(field(row, "rejected", where))
    scores = list(score(field(row, "prompt", where), [*chosen, *rejected]))
    return scores[: len(chosen)], scores[len(chosen) :]


def judge_bench_groups(rows: Located) -> list[Group]:
    """JudgeBench's pairs as groups: the objectively right answer scores 1; the meta keeps pair_id, source and category."""
    groups = []
    for where, row in rows:
        right = _label(row, where)
        prompt = Prompt(
            content=(Message("user", field(row, "question", where)),), id=str(field(row, "pair_id", where)),
            meta={"category": category(str(row.get("source", ""))), "source": str(row.get("source", ""))},
        )  # fmt: skip
        answers = tuple(Completion(content=(Message("assistant", row[k]),)) for k in ("response_A", "response_B"))
        groups.append(Group(prompt=prompt, completions=answers, scores=(right, 1.0 - right)))
    return groups


def category(source: str) -> str:
    """JudgeBench's four categories by a source's name; the source itself where it is none of theirs.

    >>> category("mmlu-pro-law"), category("livecodebench"), category("other")
    ('Knowledge', 'Coding', 'other')
    """
    return next((name for start, name in _JUDGE_BENCH.items() if source.startswith(start)), source or "all")


def _label(row: Row, where: str) -> float:
    if row["label"] not in ("A>B", "B>A"):
        raise UserError(f"'label' is {row['label']!r}", where=where, fix="A>B or B>A")
    return float(row["label"] == "A>B")


def judge_bench_rewards(rows: Located, score: AnswerScorer) -> dict[str, Any]:
    """A reward on JudgeBench: right where the objectively right answer scores higher; equal scores are wrong, as theirs are."""
    right = []
    for where, row in rows:
        a, b = score(field(row, "question", where), [row["response_A"], row["response_B"]])
        right.append((category(str(row.get("source", ""))), float((a > b) if _label(row, where) else (b > a))))
    return _by_category(right)


def judge_bench_judgments(rows: Located) -> dict[str, Any]:
    """JudgeBench's own output files (`judgments` of both orders, the second swapped): the share of pairs judged right.

    A decision equal to the label counts +1, its opposite -1, a tie or none 0; a pair is right when the sum is above 0.
    `consistency`: both orders decide for the same answer.
    """
    right, same, unread, both = [], 0, 0, 0
    places: list[tuple[float, float]] = []
    for where, row in rows:
        label, said = _label(row, where), field(row, "judgments", where)
        if not isinstance(said, list) or len(said) not in (1, 2):
            raise UserError("'judgments' is not a list of one or two", where=where)
        signs = [_sign(game, swapped=i == 1, where=where) for i, game in enumerate(said)]
        unread += any(s is None for s in signs)
        total = sum(s or 0 for s in signs) * (1 if label else -1)
        right.append((category(str(row.get("source", ""))), float(total > 0)))
        if len(signs) == 2:
            both, same = both + 1, same + (signs[0] == signs[1] and signs[0] is not None)
            if None not in signs:
                places.append(((1 + (signs[0] or 0)) / 2, (1 - (signs[1] or 0)) / 2))
    if unread == len(right):
        raise UserError("not one decision could be read", where="JudgeBench judgments", fix="use another judge or template")
    refuse_place_bound(places, "JudgeBench judgments")
    return {**_by_category(right), "unread": unread / len(right), "consistency": same / both if both else None}


def _sign(game: Any, *, swapped: bool, where: str) -> int | None:
    """+1 for answer A, -1 for B, 0 for a tie, None where nothing was decided."""
    decision = game.get("decision") if isinstance(game, Mapping) else None
    if decision is None:
        return None
    signs = {"A>B": 1, "B>A": -1, "A=B": 0}
    if decision not in signs:
        raise UserError(f"unknown decision {decision!r}", where=where, fix=f"one of {', '.join(signs)}")
    return -signs[decision] if swapped else signs[decision]


def _by_category(right: Sequence[tuple[str, float]]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for name, _ in right))
    found = {name: _share([y for n, y in right if n == name]) for name in names}
    return {"categories": found, "overall": _share([y for _, y in right])}


def _share(values: Sequence[float]) -> dict[str, Any]:
    share = sum(values) / len(values)
    return {"accuracy": share, "ci95": list(wilson(share, len(values))), "n": len(values)}
