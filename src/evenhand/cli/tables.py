"""Results of evaluations as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def comparison_lines(found: Mapping[str, Any]) -> list[str]:
    """Win rates and contrasts of `evaluation.outcomes.compare`."""
    width = max((len(a) for a in found["arms"]), default=0)
    lines = []
    for arm, row in found["arms"].items():
        low, high = row["ci95"]
        line = (
            f"{arm:<{width}}  {row['win_rate']:.1%}  (95% interval {low:.1%} to {high:.1%}; n = {row['n']}, seeds = {row['k']})"
        )
        if (lc := row.get("length_controlled")) and lc["win_rate"] == lc["win_rate"]:
            line += f"  at equal length {lc['win_rate']:.1%} [{lc['form']}]"
        lines.append(line)
    for c in found["contrasts"]:
        low, high = (100 * v for v in c["ci95"])
        lines.append(
            f"{c['a']} - {c['b']}: {100 * c['difference']:+.1f} points ({low:+.1f} to {high:+.1f}), Holm p {c['p_holm']:.3g}: "
            f"{c['verdict']}; differences under {100 * c['minimum_detectable_difference']:.1f} points cannot be seen"
        )
        if "equivalent" in c:
            lines[-1] += f"; {'' if c['equivalent'] else 'not shown to be '}equivalent within {100 * c['margin']:.1f} points"
    return lines


def plain_lines(found: Mapping[str, Any], indent: str = "") -> list[str]:
    """Any nested result, one value a line."""
    lines = []
    for key, value in found.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}:", *plain_lines(value, indent + "  ")]
        elif isinstance(value, float):
            lines.append(f"{indent}{key}: {value:.4g}")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], float):
            lines.append(f"{indent}{key}: " + " ".join(f"{v:.4g}" for v in value))
        else:
            lines.append(f"{indent}{key}: {value}")
    return lines


def leaderboard_table(lines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """AlpacaEval lines: raw and length-controlled win rates in per cent; with what a leaderboard states, where it is known."""
    width = max(len(m) for m in lines)
    out = [f"{'model':<{width}}  win rate    s.e.  at equal length (95% interval)      n  length"]
    for model, row in lines.items():
        low, high = row["lc_ci95"]
        out.append(
            f"{model:<{width}}  {row['win_rate']:8.2f}  {row['standard_error']:6.2f}  {row['length_controlled_winrate']:15.2f} "
            f"({low:.1f} to {high:.1f}){row['n_total']:9d}  {row['avg_length']:6d}"
        )
        if stated := row.get("stated"):
            known = ", ".join(f"{k} {v:.2f}" for k, v in stated.items())
            out.append(f"{'':<{width}}  stated by the leaderboard: {known}")
    out.append(f"length control: {next(iter(lines.values()))['lc_form']} (without the public leaderboard's gamed baselines)")
    return out


def best_of_n_lines(curves: Mapping[str, list[Mapping[str, Any]]]) -> list[str]:
    """Expected gold score of each proxy's favourite of n."""
    lines = []
    for name, points in curves.items():
        lines.append(f"best of n by {name} ({points[0]['prompts']} prompts, {points[0]['left_out']} left out):")
        for p in points:
            low, high = p["ci95"]
            lines.append(
                f"  n = {p['n']:<3} gold {p['gold']:.4f} ({low:.4f} to {high:.4f})   KL at most {p['kl_bound']:.2f} nats"
            )
    return lines
