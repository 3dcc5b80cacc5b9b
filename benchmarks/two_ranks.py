"""A real model trained by two ranks beside one process: `python -m benchmarks.two_ranks MODEL docs`.

Two steps of DPO on a built-in world's pairs, in float32: what one process leaves, and what two leave that share its work. The
first step is at equal weights; the weights at the end differ by what Adam makes of rounding.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.planned import GIB, nodes

BEGIN, END = "<!-- two ranks: begin -->", "<!-- two ranks: end -->"
KINDS = (("one process", 1, "ddp"), ("two ranks, ddp", 2, "ddp"), ("two ranks, fsdp", 2, "fsdp"))


def experiment(model: Path, ranks: int, shard: str) -> dict[str, Any]:
    """The file's content."""
    return {
        "name": "two ranks",
        "model": {"path": str(model), "dtype": "float32"},
        "data": {"world": "quickstart", "sizes": {"demonstrations": 4, "preferences": 12, "prompts": 4}},
        "lengths": {"prompt": 64, "completion": 48},
        "train": {"steps": 2, "prompts_per_step": 4, "tokens_per_microbatch": 160, "learning_rate": 1e-6, "schedule": "constant"},
        "runtime": {"ranks": ranks, "shard": shard},
        "baseline": "base",
        "arms": {"base": {"method": "start"}, "arm": {"method": "dpo", "initial_policy": "base"}},
        "evaluation": {"prompts": 2},
        "judge": {"reward": {"kind": "length", "unit": "words"}, "self_test": 0},
    }


def trained(model: Path, folder: Path, ranks: int, shard: str) -> tuple[Path, dict[str, Any]]:
    """The artifact of the trained arm, and what it took."""
    from evenhand.run_experiment import prepare
    from evenhand.runner.local import run
    from evenhand.store import spent

    prepared = prepare(experiment(model, ranks, shard), [f"runtime.store={folder / 'store'}"], folder / f"run-{ranks}-{shard}")
    plan = nodes(prepared)
    outcome = run(plan, prepared.store, folder / "run", workers=1, threads=1)
    if not outcome.ok:
        raise SystemExit(str(outcome.errors))
    key = plan["arms/arm/seed-0"].key
    took = spent.read(prepared.store.root, key)
    assert took is not None
    rows = [json.loads(line) for line in (prepared.store.path(key) / "metrics.jsonl").read_text().splitlines()]
    return prepared.store.path(key), {
        "seconds": took.seconds, "peak_bytes": took.peak_bytes, "loss": [r["loss"] for r in rows],
        "grad_norm": [r["grad_norm"] for r in rows],
    }  # fmt: skip


def moved(start: Path, one: Path, other: Path) -> tuple[float, float]:
    """The largest difference between two models' weights, and how far the first moved from its start at most."""
    from safetensors.torch import load_file

    a, b, before = (load_file(f / "model.safetensors") for f in (one / "model", other / "model", start))
    return (
        max(float((a[n] - b[n]).abs().max()) for n in a),
        max(float((a[n] - before[n].float()).abs().max()) for n in a if n in before),
    )


def measure(model: Path) -> dict[str, Any]:
    """Every kind, beside one process."""
    rows, first = [], None
    with tempfile.TemporaryDirectory(prefix="evenhand-ranks-") as folder:
        for name, ranks, shard in KINDS:
            artifact, found = trained(model, Path(folder), ranks, shard)
            first = first or (artifact, found)
            apart, far = moved(model, first[0], artifact)
            rows.append({"name": name, **found, "weights_apart": apart, "moved": far})
            print(rows[-1], flush=True)
    return {"rows": rows}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    one = rows[0]
    head = ["", "loss, both steps", "gradient's norm", "loss and norm differ by (relative)", "weights differ by",
            "seconds", "peak of a process"]  # fmt: skip
    lines = [head, ["---"] * len(head)]
    for row in rows:
        pairs = [(a, b) for kind in ("loss", "grad_norm") for a, b in zip(row[kind], one[kind], strict=True)]
        apart = max(abs(a - b) / abs(b) for a, b in pairs)
        lines.append([
            row["name"], ", ".join(f"{x:.7f}" for x in row["loss"]), ", ".join(f"{x:.5g}" for x in row["grad_norm"]),
            f"{apart:.1e}" if row is not one else "", f"{row['weights_apart']:.1e} (moved: {row['moved']:.1e})",
            f"{row['seconds']:.0f}", f"{row['peak_bytes'] / GIB:.2f} GiB",
        ])  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measure, and write the table into its place in DOCS/scaling.md."""
    model, docs = Path(sys.argv[1]).absolute(), Path(sys.argv[2])
    found = measure(model)
    page = docs / "scaling.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{table(found['rows'])}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
