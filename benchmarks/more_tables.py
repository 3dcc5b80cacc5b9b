"""Further tables of a study's page: what else its arms were measured on, what rounds or steps came to, what all of it took."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import page
from evenhand.store import spent


def evaluations(results: dict[str, Any]) -> str:
    """A table per evaluation: the rate, and the difference to the baseline with its interval and verdict; empty without any."""
    blocks = []
    for name, found in results["evaluations"].items():
        rows = [
            [arm, page.percent(row["rate"]), page.interval(row["ci95"]), _points(row["difference"]), row["verdict"]]
            for arm, row in found["arms"].items()
        ]
        head = ["arm", f"{found['measure']} %", "95 % interval", "difference, points", "verdict"]
        blocks.append(f"Evaluation `{name}`, {found['n_prompts']} prompts:\n\n{page.table(head, rows)}")
    return "\n\n".join(blocks)


def over_training(results: dict[str, Any]) -> str:
    """What an arm's weights came to at the steps that were kept; empty where none were."""
    rows = [
        [
            arm,
            f"{point['step']}",
            page.percent(point["win_rate"]),
            page.interval(point["ci95"]),
            f"{point['gold']:.3f}",
            f"{point['kl']:.1f}",
            f"{point['mean_length']:.1f}",
        ]
        for arm, points in results["over_training"].items()
        for point in points
    ]
    head = ["arm", "after step", "win rate %", "95 % interval", "gold", "KL, nats", "tokens"]
    return f"On the way, each point judged like an arm:\n\n{page.table(head, rows)}" if rows else ""


def took(run: Path) -> str:
    """Processor time of the run's stages, wherever they were first made, as their store says."""
    told = json.loads((run / "experiment.json").read_text(encoding="utf-8"))
    seconds: Counter[str] = Counter()
    for key, kind in {node["key"]: node["kind"] for node in told["nodes"]}.items():
        took = spent.read(run / told["store"], key)
        seconds[kind] += (took.processor_seconds or 0.0) if took is not None else 0.0
    if not any(seconds.values()):
        return ""
    parts = ", ".join(f"{kind} {value / 60:.1f}" for kind, value in seconds.most_common(4))
    return f"All stages together took {sum(seconds.values()) / 60:.0f} processor minutes ({parts})."


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}"
