"""Several sides measured in one run: each in its own process, one step each in turn, the same order every round."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.worker import serve

PATIENCE = 300.0
"""Seconds to wait for any one answer before a side is given up."""


class SideFailed(Exception):
    """A side raised, died or stopped answering."""


@dataclass(slots=True)
class Found:
    """What one side did: seconds per timed step (of the clock, and of all its threads), the peak of its memory in bytes, what it
    said of its first step."""

    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    bytes: int = 0
    first: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        out = {"seconds": [round(s, 5) for s in self.seconds], "bytes": self.bytes, "first": dict(self.first)}
        if self.seconds:
            out["median"] = round(statistics.median(self.seconds), 5)
            out["processor_median"] = round(statistics.median(self.processor_seconds), 5)
        return out | ({"error": self.error} if self.error else {})


class Side:
    """A process that carries out orders, each within `patience` seconds. `where` is `module:function` of this package."""

    def __init__(
        self, where: str, *, device: str, threads: int, log: Path, start: str, patience: float, arguments: Mapping[str, Any]
    ) -> None:
        context: Any = get_context(start)
        self._patience, (self._pipe, theirs) = patience, context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, where, device, threads, str(log), arguments))
        self._process.start()
        theirs.close()

    def ready(self) -> None:
        self._receive()

    def order(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """One step: seconds, peak bytes, info. Returns when the side is ready for the next."""
        try:
            self._pipe.send(order)
        except OSError as error:
            raise SideFailed("the process has ended") from error
        answer = self._receive()
        self.ready()
        return answer

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        with contextlib.suppress(OSError):  # it may be gone already
            self._pipe.send(None)
        self._process.join(timeout=30)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self) -> dict[str, Any]:
        try:
            if not self._pipe.poll(self._patience):
                raise SideFailed(f"no answer within {self._patience:.0f} s")
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(timeout=10)
            raise SideFailed(f"the process ended (exit code {self._process.exitcode})") from error
        if "error" in answer:
            raise SideFailed(answer["error"])
        return answer


@dataclass(slots=True)
class Bench:
    """Sides that stand ready, measured one order at a time; a side that fails is left out from then on."""

    sides: dict[str, Side]
    failed: dict[str, str] = field(default_factory=dict)

    def rounds(
        self, order: Mapping[str, Any], *, repeats: int, seconds: float, warmups: int, warm_order: Mapping[str, Any] | None = None
    ) -> dict[str, Found]:
        """`warmups` untimed rounds, then up to `repeats` timed ones while they fit into `seconds` (one at least)."""
        found = {name: Found(error=self.failed.get(name, "")) for name in self.sides}
        for i in range(warmups):
            for name, answer in self._round(order if warm_order is None else warm_order):
                if i == 0:
                    found[name].first = answer["info"]
        start = time.perf_counter()
        for done in range(repeats):
            spent = time.perf_counter() - start
            if done and (spent > seconds or (done > 1 and spent * (done + 1) / done > seconds)):
                break
            for name, answer in self._round(order):
                found[name].seconds.append(answer["seconds"])
                found[name].processor_seconds.append(answer["processor_seconds"])
                found[name].bytes = max(found[name].bytes, answer["bytes"])
                found[name].first = found[name].first or answer["info"]
        for name, problem in self.failed.items():
            found[name].error = problem
        return found

    def _round(self, order: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, side in self.sides.items():
            if name in self.failed:
                continue
            try:
                yield name, side.order(order)
            except SideFailed as error:
                self.failed[name] = str(error)


@contextlib.contextmanager
def bench(
    sides: Iterable[tuple[str, str, Mapping[str, Any]]], *, logs: Path, patience: float = PATIENCE, **named: Any
) -> Iterator[Bench]:
    """Start all sides (name, where, arguments) at once and wait until each stands ready; ends them all afterwards."""
    started = {
        name: Side(where, log=logs / f"{name.replace(' ', '-')}.log", patience=patience, arguments=arguments, **named)
        for name, where, arguments in sides
    }
    ready = Bench(started)
    try:
        for name, side in started.items():
            try:
                side.ready()
            except SideFailed as error:
                ready.failed[name] = str(error)
        yield ready
    finally:
        for side in started.values():
            side.close()
