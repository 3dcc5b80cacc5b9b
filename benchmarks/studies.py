"""`make studies`: every study that fits into an hour of two cores, run or gone on with, and its page renewed.

Each goes to `runs/studies/NAME` and shares one store; a study that is finished costs seconds. One that fails is said, and the
next one runs. `python -m benchmarks.studies --list` shows them with what they took; `--all` runs those that take longer too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOUR = 60


@dataclass(frozen=True, slots=True)
class Study:
    """A page of docs/results, or one to come, and how it is made. `minutes` of two cores are estimated from its cells."""

    name: str
    file: str
    minutes: float
    figures: tuple[str, ...] = ()
    needs: str = ""
    """What it needs that does not come with the repository; such a study is run only with `--all`."""

    @property
    def page(self) -> Path:
        return ROOT / "docs" / "results" / f"{self.name}.md"

    @property
    def out(self) -> Path:
        return ROOT / "runs" / "studies" / self.name


STUDIES = (
    Study("quickstart", "quickstart", 6),
    Study("all_roads", "examples/all_roads/small.yaml", 13, ("win_rates",)),
    Study("countdown", "examples/countdown.yaml", 10),
    Study("why_they_fail", "examples/why_they_fail.yaml", 20),
    Study("every_method", "examples/every_method.yaml", 40),
    Study("without_a_reward", "examples/without_a_reward/small.yaml", 30, ("win_rates", "length_grid")),
    Study(
        "rlhf_workflow",
        "examples/rlhf_workflow/small.yaml",
        20,
        ("win_rates", "over_training", "best_of_n", "length_map/balanced", "length_map/biased"),
    ),
    Study("offline_and_online", "examples/offline_and_online/small.yaml", 40, ("win_rates", "kl", "reward")),
    Study("loss_taxonomy", "examples/loss_taxonomy/small.yaml", 50, ("win_rates",)),
    Study("loss_taxonomy_wide", "examples/loss_taxonomy/small_wide.yaml", 120, ("win_rates",)),
    Study("course_demonstrations", "examples/course/small_demonstrations.yaml", 12, ("win_rates",)),
    Study("course_length_bias", "examples/course/small_length_bias.yaml", 20, ("win_rates",)),
    Study("course_thinking", "examples/course/small_thinking.yaml", 30, ("win_rates",)),
    Study("course_refusals", "examples/course/small_refusals.yaml", 8, ("win_rates",)),
    Study("course_wordings", "examples/course/small_wordings.yaml", 4, ("win_rates",)),
    Study("staleness", "examples/staleness.yaml", 24, ("win_rates",)),
    Study("happier_stories", "examples/happier_stories.yaml", 15, needs="the model stories260K and texts of TinyStories"),
    Study("real_instruct", "examples/real_instruct/small.yaml", 90, ("win_rates",), needs="SmolLM2-135M-Instruct, IFEval"),
)  # fmt: skip


def within(minutes: float) -> list[Study]:
    """The first studies that need nothing from elsewhere and fit, in the order of the list."""
    chosen: list[Study] = []
    for study in (s for s in STUDIES if not s.needs):
        if sum(s.minutes for s in chosen) + study.minutes <= minutes:
            chosen.append(study)
    return chosen


def make(study: Study) -> bool:
    """Runs a study, or goes on with it, and writes its page; whether that went well."""
    environment = {**os.environ, "EVENHAND_STORE": str(ROOT / "runs" / "studies" / "store")}
    run = [sys.executable, "-m", "evenhand.cli", "run", study.file, "--out", str(study.out)]
    page = [sys.executable, "-m", "benchmarks.results", str(study.out), str(study.page.relative_to(ROOT))]
    page += ["--command", "make demo" if study.name == "quickstart" else f"evenhand run {study.file}"]
    page += [word for figure in study.figures for word in ("--figure", figure)]
    return all(subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode == 0 for words in (run, page))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="show them and run nothing")
    parser.add_argument("--all", action="store_true", help="those too that take longer or need data from elsewhere")
    parser.add_argument("names", nargs="*", help="these alone")
    given = parser.parse_args()
    chosen = [s for s in STUDIES if s.name in given.names] if given.names else list(STUDIES) if given.all else within(HOUR)
    failed = []
    for study in STUDIES if given.list else chosen:
        state = "runs" if study in chosen else f"needs {study.needs}" if study.needs else "with --all"
        print(f"== {study.name}: about {study.minutes:g} minutes ({state})", flush=True)
        if not given.list and not make(study):
            failed.append(study.name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
