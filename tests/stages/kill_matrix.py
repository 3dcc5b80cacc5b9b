"""Kills without end: a run with worker processes is killed at states of its store and started again until it is whole.

    python -m tests.stages.kill_matrix --kills 200 --out figures.json
    python -m tests.stages.kill_matrix --kills 30 --at-a-time 15 --shard fsdp

Every kind of method that keeps something of its own in a checkpoint is an arm, adapters among them. A kill is a SIGKILL: of the
worker that writes an artifact, after a number of changes in its folder that is drawn, or of the run with all of its workers. With
`--shard` every network is trained by two ranks, and a kill is of one of them, of their worker, or of the main process alone.
Between two starts a file is damaged now and then: a bit of it flipped, its end cut off, or all of it gone. What a whole run has
written is then compared with what one without kills wrote, byte by byte.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from evenhand.errors import UserError
from evenhand.results.files import write_record

SHARED = """
name: killed
baseline: sft
data:
  world: quickstart
  sizes: {demonstrations: 24, preferences: 24, prompts: 24, heldout_preferences: 8}
model:
  pretrain: {documents: 32, train: {steps: 3, prompts_per_step: 8, learning_rate: 3.0e-3, checkpoint_every: 1}}
lengths: {prompt: 32, completion: 8}
sft: {train: {steps: 3, prompts_per_step: 8, learning_rate: 1.0e-3, checkpoint_every: 1}}
train:
  {steps: 4, prompts_per_step: 4, learning_rate: 1.0e-3, schedule: constant, checkpoint_every: 1, sample_every: 2}
judge: {reward: gold, self_test: 0}
arms:
  sft: {method: start}
  dpo: {method: dpo, train: {evaluate_every: 2}}
  grpo-adapter: {method: grpo, reward: REWARD, completions_per_prompt: 2, updates: 2, train: {adapter: {rank: 4}}}
  critic: {method: ppo, reward: REWARD, completions_per_prompt: 2, updates: 2, critic: separate}
  rounds: {method: iterative_dpo, reward: gold, rounds: 2, completions_per_prompt: 4, partner: previous, hybrid: true}
"""
EXPERIMENT = SHARED.replace("REWARD", "rm") + """\
  dpo-adapter: {method: dpo, train: {adapter: {rank: 4}}}
  packed: {method: iterative_dpo, reward: gold, rounds: 2, completions_per_prompt: 4, initialise: start, train: {
    optimizer: adamw_8bit}}
  kto: {method: kto, train: {adapter: {rank: 4, modules_to_save: [embed_tokens]}}}
  rloo: {method: rloo, reward: rm, completions_per_prompt: 2}
  best: {method: rloo, reward: gold, completions_per_prompt: 2, train: {keep_checkpoint: best, validate_every: 2,
    validation_prompts: 4}}
reward_models:
  rm: {train: {steps: 4, prompts_per_step: 8, learning_rate: 1.0e-3, checkpoint_every: 1, adapter: {rank: 4}}}
  heads: {method: attribute_reward_model, attributes: {good: [0, 4], long: [0, 4]}, data: rated, train: {
    steps: 3, prompts_per_step: 4, learning_rate: 1.0e-3, checkpoint_every: 1}}
  armo: {method: gated_reward_model, initial_policy: heads, hidden: 8, layers: 1, debias: long, train: {
    steps: 3, prompts_per_step: 4, learning_rate: 1.0e-3, checkpoint_every: 1}}
splits: {rated: {source: RATED}}
evaluation: {prompts: 6}
runtime: {workers: 2, threads: 1}
"""  # fmt: skip
ON_RANKS = SHARED.replace("REWARD", "gold") + """\
evaluation: {prompts: 4, frontier: false}
runtime: {workers: 2, threads: 1, ranks: 2, shard: SHARD}
"""  # fmt: skip
COMPARED = (
    "*.safetensors", "adapter_config.json", "trained.json", "metrics.jsonl", "samples.jsonl", "selection.json",
    "generations.jsonl", "verdicts.json", "scores.json", "measured.json",
)  # fmt: skip
TRAINING = "fit"
"""The kind of the stages that ranks run."""
LOOK = 0.02
"""Seconds between two looks at the store. A kill follows a change that was seen, never a time."""
_CHANCES = {"whole run": 0.06, "main process": 0.15, "a rank": 0.6, "damage": 0.6}


@dataclass
class Figures:
    """What was done, and what came of it. `differing` names the files with other bytes."""

    kills: dict[str, int] = field(default_factory=dict)
    """By what was killed: a worker, by the stage it was at, or the whole run."""
    damaged: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    """Runs that became whole."""
    starts: int = 0
    files: int = 0
    weights: int = 0
    adapters: int = 0
    differing: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def killed(self) -> int:
        return sum(self.kills.values())


class Killer:
    """Runs one experiment in one folder until it is whole, with kills on the way."""

    def __init__(self, folder: Path, dice: random.Random, figures: Figures, wanted: int, text: str = EXPERIMENT) -> None:
        self.folder, self.dice, self.figures, self.wanted = folder, dice, figures, wanted
        self.out, self.ranks = folder / "run", "ranks:" in text
        self.group = 0
        """Of the processes of the start that is under way."""
        (folder / "killed.yaml").write_text(text.replace("RATED", str(rated(folder.parent))))

    @property
    def enough(self) -> bool:
        return self.figures.killed >= self.wanted

    def until_whole(self) -> None:
        while True:
            code = self.once()
            if code not in (0, 3, -signal.SIGKILL):
                raise RuntimeError(f"the run ended with code {code}:\n{(self.folder / 'said').read_text()[-4000:]}")
            if code == 0 and self.enough:
                return
            if code == 0 or self.dice.random() < _CHANCES["damage"]:
                self.damage()

    def once(self) -> int:
        """One start of the run, to its end or its kill."""
        self.figures.starts += 1
        with open(self.folder / "said", "a") as said:
            command = [sys.executable, "-m", "evenhand.cli", "run", str(self.folder / "killed.yaml"), "--out", str(self.out)]
            run = subprocess.Popen([*command, "--unchecked"], stdout=said, stderr=said, start_new_session=True)
        watched: dict[str, Watched] = {}
        self.group = run.pid
        while run.poll() is None:
            if not self.enough:
                self.look(run, watched)
            time.sleep(LOOK)
        ended(run.pid)
        return run.returncode

    def look(self, run: subprocess.Popen[bytes], watched: dict[str, Watched]) -> None:
        """Kills the writers whose time has come: those whose folders have changed as often as was drawn for them."""
        for lock in self.store_paths("*.lock"):
            key = lock.name.removesuffix(".lock")
            seen = watched.get(key)
            if seen is None:
                after, at_rank = self.dice.choice((0, 1, 2, 4, 7, 11, 99)), self.ranks and self.dice.random() < _CHANCES["a rank"]
                seen = watched[key] = Watched(self.out / "store" / f"{key}.partial", after, at_rank)
            if not seen.due():
                continue
            if seen.at_rank and trains(seen.folder):
                if self.kill_rank(lock, seen.folder):  # else they are not there yet
                    watched[key] = Watched(seen.folder, 10**9)
                continue
            watched[key] = Watched(seen.folder, 10**9)
            if self.dice.random() < _CHANCES["whole run"]:
                os.killpg(run.pid, signal.SIGKILL)
                self.killed("whole run")
                return
            if self.ranks and self.dice.random() < _CHANCES["main process"]:
                self.kill_main(run)
                return
            self.kill_worker(lock, seen.folder)

    def kill_worker(self, lock: Path, folder: Path) -> bool:
        """Whether there was one: it may have ended meanwhile."""
        with contextlib.suppress(OSError, ValueError, LookupError):
            number = self.holder(lock)
            kind = json.loads((folder / "meta.json").read_text())["kind"]
            os.kill(number, signal.SIGKILL)
            self.killed(f"worker of ranks, {kind}" if self.ranks and kind == TRAINING else kind, folder)
            return True
        return False

    def holder(self, lock: Path) -> int:
        """The worker that holds a lock. Raises LookupError for a lock that one of an earlier start has left."""
        number = int(lock.read_text().split()[0])
        if group_of(number) != self.group:
            raise LookupError(number)
        return number

    def kill_rank(self, lock: Path, folder: Path) -> bool:
        """The same of one of the two ranks, which the worker's own fork server has started."""
        with contextlib.suppress(OSError, ValueError, LookupError):
            worker = self.holder(lock)
            kind = json.loads((folder / "meta.json").read_text())["kind"]
            ranks = sorted(rank for server in children(worker) for rank in children(server)) if kind == TRAINING else []
            if len(ranks) == 2:
                number = self.dice.randrange(2)
                os.kill(ranks[number], signal.SIGKILL)
                self.killed(f"rank {number}, {kind}", folder)
                return True
        return False

    def killed(self, what: str, folder: Path | None = None) -> None:
        """Counted, and written down with what lay in the folder: where bytes differ at the end, this says what came before."""
        count(self.figures.kills, what)
        lay = state_of(folder) if folder is not None else []
        self.event(f"killed: {what}", *(f"{Path(name).relative_to(self.out)} {size}" for name, size in lay))

    def event(self, *lines: str) -> None:
        with open(self.folder / "events", "a") as file:
            print(f"{time.time():.2f}", *lines, sep="\n  ", file=file)

    def kill_main(self, run: subprocess.Popen[bytes]) -> None:
        """Kills the main process alone: its workers, and their ranks, end by themselves."""
        run.kill()
        run.wait()
        self.killed("main process")

    def store_paths(self, pattern: str) -> list[Path]:
        store = self.out / "store"
        return sorted(store.glob(pattern)) if store.is_dir() else []

    def damage(self) -> None:
        """Spoils files of the store, finished or begun, so that their stages are made again."""
        for _ in range(0 if self.enough else self.dice.choice((1, 2, 4, 8))):
            self.spoil_one()

    def spoil_one(self) -> None:
        begun = [p for p in self.store_paths("*.partial/**/*") if p.is_file()]
        finished = [p for p in self.store_paths("*/**/*") if p.is_file() and re.fullmatch("[0-9a-f]{32}", _top(p, self.out))]
        chosen = begun if begun and self.dice.random() < 0.6 else finished
        if not chosen:
            return
        path = self.dice.choice(chosen)
        self.event(f"damaged: {path.relative_to(self.out)} {spoil(path, self.dice)}")
        count(self.figures.damaged, "work that was begun" if path in begun else "finished artifact")


def rated(folder: Path) -> Path:
    """Answers rated by two attributes, one file for all runs."""
    from tests.stages.test_reward_heads import ratings

    path = folder / "rated.jsonl"
    if not path.exists():
        ratings(path, 16)
    return path


@dataclass
class Watched:
    """A folder that is being written, and after how many changes its writer, or one of its ranks, is killed."""

    folder: Path
    after: int
    at_rank: bool = False
    changes: int = 0
    last: object = None

    def due(self) -> bool:
        now = state_of(self.folder)
        self.changes += now != self.last
        self.last = now
        return self.changes > self.after


def trains(folder: Path) -> bool:
    """Whether the stage that writes there is one that ranks run."""
    with contextlib.suppress(OSError, ValueError, LookupError):
        return json.loads((folder / "meta.json").read_text())["kind"] == TRAINING
    return False


def count(tally: dict[str, int], what: str) -> None:
    tally[what] = tally.get(what, 0) + 1


def state_of(folder: Path) -> list[tuple[str, int]]:
    """Names and sizes of everything in a folder that others are writing in."""
    found = []
    for parent, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                found.append((os.path.join(parent, file), os.stat(os.path.join(parent, file)).st_size))
    return sorted(found)


def living() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def fields_of(number: int) -> list[str]:
    """State, parent, group and more of a process, as Linux tells them; nothing of one that has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return []


def group_of(number: int) -> int | None:
    return int(found[2]) if (found := fields_of(number)) and found[0] != "Z" else None


def ended(group: int) -> None:
    """Waits until no process of the group is left: a worker or a rank may outlive the run for a moment, and still write."""
    while any(group_of(number) == group for number in living()):
        time.sleep(LOOK)


def children(number: int) -> list[int]:
    return [one for one in living() if (found := fields_of(one)) and found[0] != "Z" and int(found[1]) == number]


def _top(path: Path, out: Path) -> str:
    return path.relative_to(out / "store").parts[0]


def spoil(path: Path, dice: random.Random) -> str:
    """Flips a bit, cuts the file, empties it or removes it, at the times of before; says which."""
    before, data = path.stat(), bytearray(path.read_bytes())
    how = dice.choice(("flip", "flip", "cut", "empty", "remove"))
    if how == "remove" or not data:
        path.unlink()
        return "remove"
    if how == "flip":
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif how == "cut":
        data = data[: dice.randrange(len(data))]
    else:
        data = bytearray()
    path.chmod(0o644)
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return how


def written(out: Path) -> Iterator[tuple[str, str]]:
    """File -> digest, of everything that must not depend on kills."""
    yield "results.json", hashlib.sha256((out / "results.json").read_bytes()).hexdigest()
    for pattern in COMPARED:
        for path in sorted((out / "store").rglob(pattern)):
            yield str(path.relative_to(out)), hashlib.sha256(path.read_bytes()).hexdigest()


def matrix(
    kills: int, *, seed: int = 0, at_a_time: int = 50, folder: Path, out: Path | None = None, text: str = EXPERIMENT
) -> Figures:
    """At least `kills` kills over as many runs as they need; a run is left alone once it has had `at_a_time` of them.

    The figures are written to `out` whenever a run has become whole.
    """
    figures, began, dice = Figures(), time.monotonic(), random.Random(seed)
    whole = reference(folder / "whole", text)
    while figures.killed < kills:
        place = folder / f"run-{seed}-{figures.runs}"
        place.mkdir(parents=True)
        Killer(place, dice, figures, min(kills, figures.killed + at_a_time), text).until_whole()
        found = dict(written(place / "run"))
        figures.runs += 1
        figures.files += len(whole)
        figures.weights += sum(name.endswith("model.safetensors") for name in whole)
        figures.adapters += sum(name.endswith("adapter_model.safetensors") for name in whole)
        figures.differing += [f"{place.name}: {n}" for n in sorted({*whole, *found}) if whole.get(n) != found.get(n)]
        figures.seconds = time.monotonic() - began
        print(said(figures), flush=True)
        if out is not None:
            write_record(out, figures)
        if not figures.differing:
            shutil.rmtree(place)
    return figures


def reference(folder: Path, text: str = EXPERIMENT) -> dict[str, str]:
    """What a run without kills writes; of an earlier matrix in the same place it is still there."""
    if (folder / "run" / "results.json").exists():
        return dict(written(folder / "run"))
    folder.mkdir(parents=True)
    if Killer(folder, random.Random(), Figures(), 0, text).once() != 0:
        raise UserError("the run without kills failed", where=str(folder / "said"), fix="read what it said")
    return dict(written(folder / "run"))


def said(figures: Figures) -> str:
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(figures.kills.items()))
    damaged = ", ".join(f"{n} {what}" for what, n in sorted(figures.damaged.items())) or "nothing"
    return (
        f"{figures.killed} kills ({kinds}) in {figures.starts} starts of {figures.runs} runs; damaged: {damaged}; "
        f"{figures.files} files compared ({figures.weights} models, {figures.adapters} adapters), "
        f"{len(figures.differing)} differ; {figures.seconds:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-a-time", type=int, default=50, help="Kills of one run before it may end.")
    parser.add_argument("--folder", type=Path, default=None, help="Where to work (default: a temporary folder).")
    parser.add_argument("--out", type=Path, default=None, help="Write the figures here as JSON.")
    parser.add_argument("--shard", choices=("ddp", "fsdp"), default=None, help="Train on two ranks, which are killed too.")
    given = parser.parse_args()
    text = ON_RANKS.replace("SHARD", given.shard) if given.shard else EXPERIMENT
    with tempfile.TemporaryDirectory(prefix="kill-matrix-") as name:
        where = given.folder or Path(name)
        found = matrix(given.kills, seed=given.seed, at_a_time=given.at_a_time, folder=where, out=given.out, text=text)
    raise SystemExit(bool(found.differing))


if __name__ == "__main__":
    main()
