"""What a machine can do, as far as a prediction needs it: measured by `probe`, or given for one that is not here."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """`products` [FLOP/s] of large matrix products by precision, all `threads` together, or of one accelerator.

    `bandwidth` [bytes/s] is that of elementwise passes over memory, `disk` [bytes/s] of a flushed file. `library_bytes`
    is what a process holds before it opens a model. `memory_bytes` is of the machine (its processes share it), or of one
    accelerator. A machine whose figures are from its maker has `measured` False.
    """

    name: str
    kind: str = "cpu"
    threads: int = 1
    memory_bytes: int
    products: Mapping[str, float]
    bandwidth: float
    disk: float = 5e8
    library_bytes: int = GIB // 2
    measured: bool = True

    def rate(self, dtype: str) -> float:
        """FLOP/s of products in this precision; in float32 where it is not known."""
        return self.products.get(dtype, self.products["float32"])


H100 = Machine(
    name="H100 SXM 80 GB (its maker's figures, products at 45 % of them)", kind="cuda", memory_bytes=80 * 10**9,
    products={"bfloat16": 0.45 * 989e12, "float32": 0.45 * 67e12}, bandwidth=0.7 * 3.35e12, disk=2e9,
    library_bytes=GIB, measured=False,
)  # fmt: skip
"""Not measured here."""


def processor() -> str:
    """This machine's processor, by name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def memory() -> int:
    """Bytes of this machine's memory, or what its control group lets this process have."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdigit() else whole
