"""Reward models in the results: accuracy and calibration on held-out pairs, best of n, and their leaning to length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.evaluation.best_of_n import best_of_n_curve
from evenhand.plan.plan import Plan
from evenhand.results.files import parsed
from evenhand.results.record_parts import AgreementBin, BestOfNPoint, LengthLeaning, ProbeResult, RewardModelSummary
from evenhand.results.run_artifacts import RunArtifacts
from evenhand.stats.bestofn import best_of_n_by_prompt, kl_bound
from evenhand.stats.reward_model import agreement_by_length, calibration, length_bias, length_heatmap, pair_metrics
from evenhand.stats.twoway import paired_difference
from evenhand.types import Completion, Group, Prompt

Table = Sequence[Sequence[float | None]]


def finished_seeds(done: RunArtifacts, name: str) -> list[int]:
    return [s for s, node in done.plan.reward_models[name].items() if done.has(node)]


def reward_model_summary(done: RunArtifacts, name: str) -> RewardModelSummary:
    """A reward model on held-out pairs, with the probes of its last seed."""
    nodes = [done.plan.reward_models[name][seed] for seed in finished_seeds(done, name)]
    probes = parsed(dict[str, ProbeResult], done.load(nodes[-1], "probes.json") or {})
    found = on_pairs([done.load(node, "scores.json") for node in nodes])
    return replace(found, label_ceiling=label_ceiling(done.plan), probes=probes)


def on_pairs(tables: Sequence[Mapping[str, Any]]) -> RewardModelSummary:
    """Scores of held-out pairs by seed: means over seeds, with the first seed's interval; the bins are the last seed's."""
    found = [pair_metrics(t["chosen"], t["rejected"], t["chosen_chars"], t["rejected_chars"]) for t in tables]
    names = ("accuracy", "mean_margin", "log_loss", "ece", "length_correlation", "ties")
    means: dict[str, Any] = {name: float(np.mean([getattr(m, name) for m in found])) for name in names}
    (low, high), shift, last = found[0].ci95, means["accuracy"] - found[0].accuracy, tables[-1]
    margins = np.array(last["chosen"]) - np.array(last["rejected"])
    by_length = agreement_by_length(last["chosen"], last["rejected"], last["chosen_chars"], last["rejected_chars"])
    return RewardModelSummary(
        **means, ci95=(max(low + shift, 0.0), min(high + shift, 1.0)), n=found[0].n, per_seed=tuple(m.accuracy for m in found),
        log_loss_per_seed=tuple(m.log_loss for m in found), calibration=parsed(tuple[AgreementBin, ...], calibration(margins)),
        by_length=parsed(dict[str, AgreementBin], by_length),
    )  # fmt: skip


def label_ceiling(plan: Plan) -> float | None:
    """The best accuracy any reward model could have under a built-in world's label noise."""
    if plan.experiment.data.world is None or plan.experiment.annotate is not None:
        return None
    from evenhand import worlds

    given = plan.experiment.data
    assert given.world is not None
    return float(worlds.with_annotator(worlds.get(given.world, **given.options), **given.annotator).label_ceiling())


def best_of_n(scores: Mapping[str, Any]) -> dict[str, tuple[BestOfNPoint, ...]]:
    """A curve per reward model that scored the samples; empty without a judge that scores. See `RunArtifacts.scored_samples`."""
    if scores["gold"] is None:
        return {}
    gold = _numbers(scores["gold"])
    empty = Completion(content="")
    groups = [Group(prompt=Prompt(content=str(i)), completions=(empty,) * len(row)) for i, row in enumerate(gold)]
    proxies = {**{name: _numbers(t) for name, t in scores["proxies"].items()}, "the judge itself": gold}
    proxies["length"] = [[float(v) for v in row] for row in scores["length"]]
    try:
        return parsed(dict[str, tuple[BestOfNPoint, ...]], best_of_n_curve(groups, proxies, gold))
    except UserError:
        return {}  # no prompt is fully scored; the arms' own results say how much is invalid


def best_of_n_of_arms(done: RunArtifacts) -> dict[str, dict[str, tuple[BestOfNPoint, ...]]]:
    """A curve per arm and reward model over the finished seeds; intervals are over seeds and prompts.

    Empty without a judge that scores. A prompt that is not fully scored in every seed is left out, and counted.
    """
    found = {}
    for arm, seeds in done.plan.arm_samples.items():
        tables = [done.scored_samples(node, seed) for seed, node in seeds.items() if done.has(node)]
        if tables and all(t["gold"] is not None for t in tables):
            found[arm] = _over_seeds(tables)
    return found


def _over_seeds(tables: Sequence[Mapping[str, Any]]) -> dict[str, tuple[BestOfNPoint, ...]]:
    """The curves of whoever scored the samples of all seeds, [seeds][prompts][answers]."""
    golds = np.array([_numbers(t["gold"]) for t in tables])
    names = [name for name in tables[0]["proxies"] if all(name in t["proxies"] for t in tables)]
    scorers = {name: np.array([_numbers(t["proxies"][name]) for t in tables]) for name in names}
    scorers["the judge itself"] = golds
    whole = np.isfinite(golds).all(axis=(0, 2))
    for scores in scorers.values():
        whole &= np.isfinite(scores).all(axis=(0, 2))
    if not whole.any():
        return {}
    curves = {}
    for name, scores in scorers.items():
        by_prompt = np.stack([best_of_n_by_prompt(s[whole], g[whole]) for s, g in zip(scores, golds, strict=True)])
        curves[name] = tuple(_mean_point(n + 1, by_prompt[..., n], len(whole)) for n in range(by_prompt.shape[-1]))
    return curves


def _mean_point(n: int, table: np.ndarray, asked: int) -> BestOfNPoint:
    """The mean of a table [seeds, prompts] with its interval."""
    mean = paired_difference(table, np.zeros_like(table))
    return BestOfNPoint(
        n=n, gold=mean.estimate, ci95=mean.ci95, kl_bound=kl_bound(n), prompts=table.shape[1], left_out=asked - table.shape[1]
    )


def length_leaning(scores: Mapping[str, Any]) -> dict[str, LengthLeaning]:
    """Per reward model the within-prompt correlation of reward and length, and the heat map of it by mean length."""
    found = {}
    for name, table in scores["proxies"].items():
        kept = [i for i, row in enumerate(table) if None not in row and len(row) > 2]
        if not kept:
            continue
        bias = length_bias([[float(v) for v in table[i] if v is not None] for i in kept], [scores["length"][i] for i in kept])
        if not bias.correlations:
            continue
        counts, down, across = length_heatmap(bias, rows=20, columns=8)
        heat = {"counts": counts.astype(int).tolist(), "correlation": down.tolist(), "length": across.tolist()}
        row = {k: v for k, v in asdict(bias).items() if k in ("mean_correlation", "share_above", "slope")}
        row |= {"prompts": len(bias.correlations), "skipped": bias.skipped + len(table) - len(kept)}
        found[name] = parsed(LengthLeaning, {**row, "heatmap": heat})
    return found


def _numbers(table: Table) -> list[list[float]]:
    return [[math.nan if v is None else float(v) for v in row] for row in table]
