"""Does an arm learn the same when another engine samples it? Two finished runs of one experiment, seed by seed.

Both begin from the same start and take the same prompts; the answers drawn for them differ. So the difference of the mean
rewards over a few steps has a mean of zero where both engines sample from the same distribution; its interval is Student's
over seeds.
The part between `<!-- curves:begin -->` and `<!-- curves:end -->` of the page is written anew.

python -m benchmarks.two_engines RUN_DIRECTORY RUN_DIRECTORY docs/engines.md --arm rloo
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
from scipy import stats

CURVES = re.compile(r"(<!-- curves:begin -->\n).*?(<!-- curves:end -->)", re.S)
BLOCK = 6
"""Steps whose rewards are taken together."""


def rewards(run: Path, arm: str) -> np.ndarray:
    """The mean reward of every step's answers, seeds x steps."""
    files = sorted(run.glob(f"arms/{arm}/seed-*/metrics.jsonl"))
    return np.array([[json.loads(line)["reward"] for line in file.read_text().splitlines()] for file in files])


def blocks(curve: np.ndarray) -> np.ndarray:
    """Means over `BLOCK` steps, seeds x blocks; what is left at the end is a shorter block."""
    return np.stack([curve[:, at : at + BLOCK].mean(1) for at in range(0, curve.shape[1], BLOCK)], 1)


def table(first: np.ndarray, second: np.ndarray, names: tuple[str, str]) -> str:
    """A row per block: both engines' mean reward, and the difference with its 95 % interval over seeds."""
    rows = [f"| steps | {names[0]} | {names[1]} | difference | 95 % interval |", "|---|---|---|---|---|"]
    for at, (one, other) in enumerate(zip(blocks(first).T, blocks(second).T, strict=True)):
        apart = other - one
        low, high = stats.t.interval(0.95, len(apart) - 1, apart.mean(), stats.sem(apart))
        steps = f"{at * BLOCK + 1} to {min((at + 1) * BLOCK, first.shape[1])}"
        rows.append(f"| {steps} | {one.mean():.3f} | {other.mean():.3f} | {apart.mean():+.3f} | {low:+.3f} to {high:+.3f} |")
    return "\n".join(rows)


def engine_of(run: Path) -> str:
    """The engine that the run's file names."""
    engine = json.loads((run / "experiment.json").read_text())["effective"]["engine"]
    return str(engine if isinstance(engine, str) else engine["kind"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs=2, type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--arm", required=True)
    options = parser.parse_args()
    first, second = (rewards(run, options.arm) for run in options.runs)
    one, other = (engine_of(run) for run in options.runs)
    written = f"{len(first)} seeds, the mean reward of {options.arm}'s answers:\n\n{table(first, second, (one, other))}\n"
    options.page.write_text(CURVES.sub(lambda part: part[1] + written + part[2], options.page.read_text()))


if __name__ == "__main__":
    main()
