"""The machine a run was made on, and the most arithmetic it can do."""

from __future__ import annotations

import os
import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.worker import Gate

PACKAGES = ("torch", "transformers", "trl", "accelerate")


def describe(device: str, threads: int) -> dict[str, Any]:
    """Processor or accelerator, cores, memory, versions; and how many processes were waiting before anything was measured."""
    found: dict[str, Any] = {
        "device": processor(), "cores": cores(), "threads": threads, "load": round(os.getloadavg()[0], 1),
        "memory_gb": round(memory_bytes() / 2**30),
        "python": platform.python_version(), "system": platform.system(),
        "versions": {name: installed(name) for name in PACKAGES},
    }  # fmt: skip
    if device != "cpu":
        import torch

        found |= {"host": found["device"], "device": torch.cuda.get_device_name()}
        found["memory_gb"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30)
    return found


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    flags = next((line for line in lines if line.startswith("flags")), "")
    wide = [label for flag, label in (("avx512f", "AVX-512"), ("avx512_bf16", "bf16")) if flag in flags]
    return f"{name} ({', '.join(wide)})" if wide else name or platform.machine()


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def matmul(gate: Gate, size: int) -> None:
    """Orders a precision, gets the rate of square products of random matrices in FLOP/s, by the faster of torch's libraries
    where it has two: the median of ten."""
    import torch

    from evenhand.core.matmul import product

    while (order := gate.wait()) is not None:
        a, b = (torch.randn(size, size, device=gate.device, dtype=getattr(torch, order["precision"])) for _ in range(2))
        seconds = []
        for _ in range(13):
            start = time.perf_counter()
            product(a, b)
            if gate.device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        gate.done(flops=2 * size**3 / statistics.median(seconds[3:]))
