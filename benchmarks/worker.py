"""One side in a process of its own: it does a step when told, and says how long the step took and what it holds in memory."""

from __future__ import annotations

import importlib
import resource
import sys
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SELF = Path("/proc/self")


class Gate:
    """Between a side and the process that measures it. A side calls `loaded` once its imports are done, then in turn `wait` for
    an order and `done` when it is carried out; both sides are timed by this same code, from order to `done`."""

    def __init__(self, pipe: Connection, device: str) -> None:
        self._pipe, self.device = pipe, device
        self._baseline, self._started, self._worked = 0, 0.0, 0.0

    def loaded(self) -> None:
        """From here on, memory counts: libraries are loaded, the model is not."""
        if self.device == "cpu":
            _forget_peak()
            self._baseline = _resident("VmRSS")

    def wait(self) -> Mapping[str, Any] | None:
        """The next order, or None at the end."""
        self._pipe.send({"ready": True})
        order = self._pipe.recv()
        self._synchronise(forget=True)
        self._started, self._worked = time.perf_counter(), time.process_time()
        return order

    def done(self, **info: Any) -> None:
        """The order is carried out."""
        self._synchronise()
        seconds, worked = time.perf_counter() - self._started, time.process_time() - self._worked
        self._pipe.send({"seconds": seconds, "processor_seconds": worked, "bytes": self._peak(), "info": info})

    def _synchronise(self, *, forget: bool = False) -> None:
        """Waits for an accelerator; with `forget` its peak of memory counts from here."""
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize()
            if forget:
                torch.cuda.reset_peak_memory_stats()

    def _peak(self) -> int:
        if self.device != "cpu":
            import torch

            return torch.cuda.max_memory_allocated()
        return _resident("VmHWM") - self._baseline


def serve(pipe: Connection, side: str, device: str, threads: int, log: str, arguments: Mapping[str, Any]) -> None:
    """Run `module:function` of this package behind a gate; its output goes to the file `log`."""
    sys.stdout = sys.stderr = Path(log).open("w", buffering=1)  # noqa: SIM115  (until the process ends)
    try:
        import torch

        torch.set_num_threads(threads)
        module, function = side.split(":")
        getattr(importlib.import_module(f"benchmarks.{module}"), function)(Gate(pipe, device), **arguments)
    except Exception:
        traceback.print_exc()
        pipe.send({"error": traceback.format_exc(limit=-4)})
    finally:
        pipe.close()


def _forget_peak() -> None:
    if (SELF / "clear_refs").exists():
        (SELF / "clear_refs").write_text("5")


def _resident(name: str) -> int:
    """VmRSS or VmHWM (its peak) in bytes; where there is no /proc, the peak since the process began."""
    if not (SELF / "status").exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    line = next(line for line in (SELF / "status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
