"""What can be told of a policy from its answers alone: length, diversity, repetition, truncation, refusals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from evenhand.evaluation.refusals import refusal_rates
from evenhand.stats import distinct_n, length_entropy, repetition, self_overlap
from evenhand.types import Finish, Group


def text_metrics(groups: Sequence[Group]) -> dict[str, Any]:
    """Averages over answers; a field is absent where the answers cannot tell (tokens of a text file, overlap of one answer).

    `repetition`: share of word triples that occurred earlier in the answer. `self_overlap`: of the answers to one prompt.
    `entropy`: mean -log-prob per sampled token in nats, an estimate of the sampler's entropy at its temperature.
    """
    answers = [c for g in groups for c in g.completions]
    texts = [c.text for c in answers]
    found: dict[str, Any] = {
        "prompts": len(groups),
        "answers": len(answers),
        "mean_chars": float(np.mean([len(t) for t in texts])) if texts else None,
        "empty": sum(not t.strip() for t in texts) / max(len(texts), 1),
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "repetition": _mean([repetition(t) for t in texts]),
        "self_overlap": mean_overlap([c.text for c in g.completions] for g in groups),
        "refusals": refusal_rates(groups) if texts else None,
    }
    sampled = [c for c in answers if c.tokens is not None]
    if sampled:
        lengths = [len(c.tokens or ()) for c in sampled]
        found |= {"mean_length": float(np.mean(lengths)), "length_entropy": length_entropy(lengths)}
        found["truncated"] = sum(c.finish is Finish.LENGTH for c in sampled) / len(sampled)
    logps = [v for c in answers for v in c.behaviour_logp or ()]
    if logps:
        found["entropy"] = -float(np.mean(logps))
    return {k: v for k, v in found.items() if v is not None and not (isinstance(v, float) and math.isnan(v))}


def mean_overlap(answers: Iterable[Sequence[str]]) -> float:
    """The mean over prompts of `self_overlap` of the answers to one; NaN where no prompt has two."""
    return _mean([self_overlap(texts) for texts in answers if len(texts) > 1])


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan
