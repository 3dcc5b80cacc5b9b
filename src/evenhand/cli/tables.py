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
