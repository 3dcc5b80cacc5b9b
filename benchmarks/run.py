"""`python -m benchmarks.run`: measure everything beside TRL, keep docs/benchmarks.json, write docs/benchmarks.md from it.

`--quick` proves in about two minutes that everything runs, and writes under runs/bench instead of docs. A row that fails is
shown as failed and stops nothing. On a GPU: `benchmarks.gpu_lane`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import corpus, machine, page, shapes
from benchmarks.measure import PATIENCE, SideFailed, bench
from benchmarks.shapes import Suite, Training

DOCS = Path(__file__).parent.parent / "docs"
SCRATCH = Path("runs/bench")
ROW = 60.0
"""Seconds that a row which may begin has at least."""
QUIET = {
    "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TRL_EXPERIMENTAL_SILENCE": "1",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run happens: the device, its threads, a scratch folder for models, a folder for the sides' output, when it has to
    end, how processes of the sides begin, and in which precisions they train."""

    device: str
    threads: int
    scratch: Path
    logs: Path
    deadline: float = math.inf
    start: str = "spawn"
    precisions: tuple[str, ...] = ("float32", "bfloat16")

    def bench(self, sides: Any) -> Any:
        patience = max(ROW, min(PATIENCE, self.deadline - time.perf_counter()))
        return bench(sides, device=self.device, threads=self.threads, logs=self.logs, start=self.start, patience=patience)

    def in_time(self, name: str) -> bool:
        """Whether a row may still begin; says so when it may not."""
        if time.perf_counter() < self.deadline:
            return True
        say(f"{name}: left out, the time is up")
        return False


@contextlib.contextmanager
def place(device: str, threads: int, logs: Path, **named: Any) -> Iterator[Place]:
    """A place with a scratch folder that goes with it; nothing asks a hub or shows bars."""
    logs.mkdir(parents=True, exist_ok=True)
    os.environ |= QUIET
    with tempfile.TemporaryDirectory(prefix="evenhand-bench-") as folder:
        os.environ["HF_HOME"] = os.environ["HF_DATASETS_CACHE"] = folder
        yield Place(device=device, threads=threads, scratch=Path(folder), logs=logs, **named)


def main() -> None:
    """Parse arguments, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny shapes: does everything run?")
    parser.add_argument("--threads", type=int, default=machine.cores(), help="of each side (default: all cores)")
    parser.add_argument("--only", default="", help="rows whose name holds this text, or `sampling`")
    parser.add_argument("--out", type=Path, default=None, help="folder of benchmarks.json and benchmarks.md (default: docs)")
    given = parser.parse_args()
    suite = shapes.quick(shapes.CPU) if given.quick else shapes.CPU
    deadline = time.perf_counter() + 60 * suite.minutes
    with place("cpu", given.threads, SCRATCH, deadline=deadline) as here:
        results = measured(suite, here, given.only)
    keep(given.out or (SCRATCH if given.quick else DOCS), "cpu", results)


def keep(out: Path, device: str, results: Mapping[str, Any]) -> None:
    """Write a device's results, beside those of others that are there, and the page of all."""
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "benchmarks.json"
    pages = (json.loads(kept.read_text()) if kept.exists() else {}) | {device: results}
    kept.write_text(json.dumps(pages, indent=1) + "\n")
    (out / "benchmarks.md").write_text(page.render(pages))
    say(f"wrote {out / 'benchmarks.md'}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measured(suite: Suite, place: Place, only: str) -> dict[str, Any]:
    """Everything of a suite; `only` keeps the rows whose name holds it."""
    start = time.perf_counter()
    results = begun(place)
    results["sampling"] = list(sampling(suite, place)) if only in "sampling" else []
    results["training"] = [training(c, suite, place) for c in suite.training if only in c.name and place.in_time(c.name)]
    results["minutes"] = round((time.perf_counter() - start) / 60, 1)
    return results


def begun(place: Place) -> dict[str, Any]:
    """The machine, the date, and the rate of large matrix products."""
    results = {"machine": machine.describe(place.device, place.threads), "date": time.strftime("%Y-%m-%d"), "peak": peak(place)}
    say(f"{results['machine']['device']}: " + ", ".join(f"{k} {v / 1e9:,.0f} GFLOP/s" for k, v in results["peak"].items()))
    return results


def peak(place: Place) -> dict[str, float]:
    """FLOP/s of large matrix products, per precision."""
    size = 2048 if place.device == "cpu" else 8192
    with place.bench([("peak", "machine:matmul", {"size": size})]) as ready:
        side = ready.sides["peak"]
        return {p: round(side.order({"precision": p})["info"]["flops"]) for p in ("float32", "bfloat16")}


def sides(precisions: Sequence[str]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Who takes part in a training row: name, function, arguments."""
    return [
        (f"{name} {precision}", function, {"precision": precision, **arguments})
        for precision in precisions
        for name, function, arguments in (
            ("ours", "ours:train", {}),
            ("shipped", "trl_side:train", {}),
            ("tuned", "trl_side:train", {"tuned": True}),
        )
    ]


def training(case: Training, suite: Suite, place: Place) -> dict[str, Any]:
    """One row: all sides, one step each in turn."""
    with models(case.model, place, "reward" if case.kind == "reward" else "policy") as folder:
        taking_part = [(n, w, {"case": case, "folder": folder, **a}) for n, w, a in sides(place.precisions)]
        with place.bench(taking_part) as ready:
            found = ready.rounds({}, repeats=suite.repeats, seconds=suite.seconds, warmups=suite.warmups)
    lengths = corpus.lengths(case)
    row = {
        "name": case.name, "title": case.title, "model": case.model.name, "target": case.target, "kind": case.kind,
        "tokens": case.tokens,
        "flops": case.flops(lengths), "state": case.model.state, "completion_tokens": sum(map(sum, lengths)),
        "sides": {name: f.as_dict() for name, f in found.items()},
    }  # fmt: skip
    say(page.line(row))
    return row


def sampling(suite: Suite, place: Place) -> Iterator[dict[str, Any]]:
    """Every sampling shape, one process per side for all of them; first, that greedy answers are the same."""
    arguments = {"vocab": suite.sampler.vocab}
    with models(suite.sampler, place, "policy") as folder:
        named = [("ours", "ours:sample"), ("generate", "trl_side:sample")]
        with place.bench([(n, w, {"folder": folder, **arguments}) for n, w in named]) as ready:
            same = greedy_share(ready)
            for case in suite.sampling:
                if not place.in_time(case.name):
                    break
                order = {"rows": case.rows, "prompt": case.prompt, "new": case.new, "group": case.group, "temperature": 1.0}
                brief = order | {"new": min(case.new, 4)}
                found = ready.rounds(
                    order, repeats=suite.repeats, seconds=suite.sampling_seconds, warmups=suite.warmups, warm_order=brief
                )
                row = {
                    "name": case.name, "rows": case.rows, "prompt": case.prompt, "new": case.new, "group": case.group,
                    "model": suite.sampler.name, "greedy_share": same, "sides": {n: f.as_dict() for n, f in found.items()},
                }  # fmt: skip
                say(page.sampling_line(row))
                yield row


def greedy_share(ready: Any) -> float | None:
    """Share of greedily decoded tokens on which both sides agree (None when a side failed)."""
    order = {"rows": 4, "prompt": 16, "new": 16, "group": 1, "temperature": 0.0}
    rows = []
    for name, side in ready.sides.items():
        try:
            rows.append(side.order(order)["info"]["rows"])
        except SideFailed as error:
            ready.failed[name] = str(error)
            return None
    a, b = rows
    pairs = [(x, y) for r, s in zip(a, b, strict=True) for x, y in zip(r, s, strict=True)]
    return sum(x == y for x, y in pairs) / len(pairs)


@contextlib.contextmanager
def models(model: shapes.Model, place: Place, kind: str) -> Iterator[Path]:
    """The folder of a model shape's random weights of a kind, made once per run."""
    folder = place.scratch / f"model-{model.layers}-{model.width}-{model.vocab}"
    if not (folder / kind).exists():
        corpus.save_models(model, folder, kinds=(kind,), device=place.device)
    yield folder


if __name__ == "__main__":
    main()
