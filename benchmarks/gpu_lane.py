"""`python -m benchmarks.gpu_lane`: everything that needs a GPU, in one command of at most nine minutes, without a network.

In order: every kernel against float64 on the processor, and beside it a small quickstart's verdicts against the processor's; the
log-prob op alone; optimizer steps beside TRL; sampling beside `generate`. What a part finds is written as it is found, so that a
run that is cut keeps it; rows that would begin too late are left out. The package need not be installed. `--wheels DIR` first
installs the wheels of a folder for this run alone. `--device cpu --tiny` proves that everything runs; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("runs/bench-gpu")
MINUTES = 9.0
CHECKS = 170.0
"""Seconds that tests and quickstarts have."""
LOADED = (
    "torch", "transformers", "transformers.models.qwen2.modeling_qwen2", "datasets", "trl", "evenhand.stages.fit",
    "evenhand.engines.local",
)  # fmt: skip
"""What processes of the sides begin with; none of it opens a device. TRL's trainers are loaded where they are used."""
TESTS = {"cuda": ["-m", "gpu or not gpu", "-k", "cuda or no_device or missing", "-n", "6"], "cpu": ["-m", "not gpu"]}
SAID = [
    "tests/engines/test_vllm.py::test_settled_options_and_a_missing_installation_are_named",
    "tests/experiment/test_keys.py::test_no_device_takes_up_what_another_made",
]
"""Tests of no device: vLLM that is missing is said, and devices share no keys."""
SMALLER = [
    "seeds=[0]", "model.pretrain.documents=2500", "data.sizes.demonstrations=1000", "data.sizes.preferences=1500",
    "data.sizes.prompts=400", "train.steps=12", "evaluation.prompts=200",
]  # fmt: skip
TINY = [
    "seeds=[0]", "model.pretrain.documents=200", "sft.train.epochs=1", "data.sizes.demonstrations=60", "train.steps=1",
    "data.sizes.preferences=60", "data.sizes.prompts=32", "data.sizes.heldout_preferences=20", "arms.dpo.train.steps=1",
    "evaluation.prompts=16",
]  # fmt: skip
PRECISION = "bfloat16"
FIRST = 5
"""Optimizer steps that are measured before sampling."""
OP, TINY_OP = (8192, 4096, 151_936), (64, 32, 500)
"""Rows, width and vocabulary of the log-prob op alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One run: the device, whether tiny, where it writes, and when it has to end (by `time.perf_counter`)."""

    device: str
    tiny: bool
    out: Path
    end: float

    @property
    def left(self) -> float:
        return self.end - time.perf_counter()


def main() -> None:
    """Parse arguments, install what travelled along, run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: does everything run?")
    parser.add_argument("--wheels", type=Path, default=None, help="folder of wheels that this machine lacks")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of benchmarks.json and benchmarks.md (to publish: docs)")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--only", default="", help="parts whose name holds this text: " + ", ".join(PARTS))
    given = parser.parse_args()
    lane = Lane(device=given.device, tiny=given.tiny, out=given.out, end=time.perf_counter() + 60 * given.minutes)
    with installed(given.wheels):
        run(lane, [name for name in PARTS if given.only in name])


@contextmanager
def installed(wheels: Path | None) -> Iterator[None]:
    """Inside, this process and those it starts find this package, and the packages of a folder of wheels."""
    with tempfile.TemporaryDirectory(prefix="evenhand-wheels-") as site:
        if wheels is not None:
            files = sorted(str(path) for path in wheels.glob("*.whl"))
            options = ("--quiet", "--no-index", "--no-deps", "--no-compile", "--target", site)
            subprocess.run([sys.executable, "-m", "pip", "install", *options, *files], check=True)
        found = [site, str(ROOT / "src"), str(ROOT)]
        sys.path[:0] = found
        os.environ["PYTHONPATH"] = os.pathsep.join([*found, *filter(None, [os.environ.get("PYTHONPATH")])])
        yield


def run(lane: Lane, parts: Sequence[str]) -> None:
    """Every part in turn; all that is known is written after each row."""
    from benchmarks import machine, run, shapes

    suite = shapes.GPU
    if lane.tiny:
        suite = replace(shapes.quick(suite), training=shapes.quick(suite).training[1 : FIRST + 2])
    forkserver.set_forkserver_preload(list(LOADED))
    named: dict[str, Any] = {"deadline": lane.end - run.ROW, "start": "forkserver", "precisions": (PRECISION,)}
    with run.place(lane.device, machine.cores(), lane.out / "logs", **named) as place:
        results: dict[str, Any] = {**run.begun(place), "training": [], "sampling": [], "log_probs": []}
        for name in parts:
            for key, found in PARTS[name](lane, suite, place):
                results[key] = [*results[key], found] if isinstance(results.get(key), list) else found
                results["minutes"] = round((60 * MINUTES - lane.left) / 60, 1)
                run.keep(lane.out, lane.device, results)


def checked(lane: Lane, suite: Any, place: Any) -> Iterator[tuple[str, Any]]:
    """Tests of the device, and the quickstart on it and on the processor, all at once: none of it is timed."""
    limit = min(CHECKS, lane.left)
    with tempfile.TemporaryDirectory(prefix="evenhand-quickstart-") as scratch:
        folders = {device: Path(scratch) / device for device in dict.fromkeys(("cpu", lane.device))}
        runs = {device: started(lane, f"quickstart-{device}", learn(device, to, lane.tiny)) for device, to in folders.items()}
        report = lane.out / "logs" / "tests.xml"
        tests = started(lane, "tests", tested(lane.device, report))
        problem = ended(tests, limit)
        yield "checks", {"cases": cases(report), "problem": problem if problem.startswith("not ended") else ""}
        problems = {device: ended(process, limit) for device, process in runs.items()}
        verdicts = {device: said(folder / "results.json") for device, folder in folders.items()}
        contrasts = list(dict.fromkeys(name for found in verdicts.values() for name in found))
        yield "quickstart", {"verdicts": verdicts, "contrasts": contrasts, "problems": problems}


def tested(device: str, report: Path) -> list[str]:
    """The command that runs the tests of a device."""
    options = ["-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junitxml={report}", *TESTS[device]]
    return [sys.executable, "-m", "pytest", str(ROOT / "tests" / "test_devices.py"), *(str(ROOT / t) for t in SAID), *options]


def learn(device: str, folder: Path, tiny: bool) -> list[str]:
    """The command that runs a smaller quickstart on a device, as many arms at once as are worth it there."""
    from benchmarks.machine import cores

    workers = max(1, cores() // 2) if device == "cpu" else 4
    own = [f"runtime.device={device}", f"runtime.workers={workers}"]
    return [sys.executable, "-m", "evenhand", "run", "quickstart", "--out", str(folder), *(TINY if tiny else SMALLER), *own]


def started(lane: Lane, name: str, command: Sequence[str]) -> tuple[subprocess.Popen[bytes], float]:
    """A command that runs beside this process, its output in a file of the lane's logs; and when it began."""
    log = (lane.out / "logs" / f"{name}.log").open("w")
    return subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True), time.perf_counter()


def ended(started: tuple[subprocess.Popen[bytes], float], limit: float) -> str:
    """Waits until a command has ended, but no longer than `limit` seconds from its beginning; what went wrong, or nothing."""
    process, began = started
    try:
        code = process.wait(timeout=max(0.0, began + limit - time.perf_counter()))
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
        return f"not ended after {limit:.0f} s"
    return "" if code == 0 else f"ended with exit code {code}, see its log"


def cases(report: Path) -> list[dict[str, Any]]:
    """Every test of a report: its name, how it ended and why, and pairs of an error and the one that is allowed."""
    if not report.exists():
        return []
    found = [case_of(case) for case in ElementTree.parse(report).iter("testcase")]
    return sorted(found, key=lambda c: c["name"].split("[")[0])


def case_of(case: ElementTree.Element) -> dict[str, Any]:
    wrong = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
    errors = [[float(x) for x in p.attrib["value"].split(" of ")] for p in case.iter("property") if p.attrib["name"] == "error"]
    outcome, why = ("passed", "") if wrong is None else (wrong.tag, wrong.attrib.get("message", "").partition("\n")[0][:200])
    return {"name": case.attrib["name"], "outcome": outcome, "why": why, "errors": errors}


def said(results: Path) -> Mapping[str, str]:
    """The verdict of each contrast of a run and the difference in points; nothing where it did not end."""
    if not results.exists():
        return {}
    found = json.loads(results.read_text())["contrasts"]
    return {f"{c['a']} against {c['b']}": f"{c['verdict']} ({100 * c['difference']:+.1f})" for c in found}


def log_probs(lane: Lane, suite: Any, place: Any) -> Iterator[tuple[str, Any]]:
    """The log-prob op alone, and full logits."""
    rows, width, vocab = TINY_OP if lane.tiny else OP
    named = {"rows": rows, "width": width, "vocab": vocab}
    sides = [(f"{n} {PRECISION}", "ours:log_probs", {**named, "fused": n == "ours"}) for n in ("ours", "logits")]
    with place.bench(sides) as ready:
        found = ready.rounds({}, repeats=9, seconds=10.0, warmups=2)
    title = f"{rows:,} x {width:,} x {vocab:,}"
    yield "log_probs", {"title": title, "flops": 6.0 * rows * width * vocab, "sides": {n: f.as_dict() for n, f in found.items()}}


def training(lane: Lane, suite: Any, place: Any, *, rows: slice) -> Iterator[tuple[str, Any]]:
    """Some of the suite's optimizer steps."""
    from benchmarks import run

    yield from (("training", run.training(c, suite, place)) for c in suite.training[rows] if place.in_time(c.title))


def sampling(lane: Lane, suite: Any, place: Any) -> Iterator[tuple[str, Any]]:
    from benchmarks import run

    yield from (("sampling", row) for row in run.sampling(suite, place))


Part = Callable[[Lane, Any, Any], Iterator[tuple[str, Any]]]
PARTS: dict[str, Part] = {
    "checks": checked, "log-probs": log_probs, "steps": partial(training, rows=slice(0, FIRST)), "sampling": sampling,
    "more steps": partial(training, rows=slice(FIRST, None)),
}  # fmt: skip


if __name__ == "__main__":
    main()
