"""A short look at this machine: how fast products, passes over memory and the disk are, and what the libraries hold."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from evenhand.core import matmul
from evenhand.plan.costs.machine import GIB, Machine, memory, processor

ROWS, WIDTH, OUT = 512, 1024, 4096
"""Of the product that is timed."""
REPEATS = 3
EMPTY = """
import os, evenhand.runner.preload, evenhand.stages.fit, transformers.models.llama.modeling_llama, torch
if not os.fork():
    from transformers import AutoModelForCausalLM, LlamaConfig
    from evenhand.models.policy import Policy
    from evenhand.plan.costs.calibration import a_pass
    shape = dict(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    policy = Policy(AutoModelForCausalLM.from_config(LlamaConfig(**shape)))
    a_pass(policy)
    torch.optim.AdamW(policy.parameters(), fused=True).step()
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), flush=True)
    os._exit(0)
os.wait()
"""
"""A worker as the runner makes one, forked from a process that has imported what stages import, with a network of no size."""


def probe(threads: int, folder: Path | None = None) -> Machine:
    """This machine with so many threads. Some seconds; times are those of the processor, so that other work disturbs them less.

    `folder` is where the disk is tried.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        products = {name: product_rate(dtype) for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))}
        return Machine(
            name=processor(), threads=threads, memory_bytes=memory(), products=products, bandwidth=bandwidth(),
            disk=disk(folder), library_bytes=libraries(),
        )  # fmt: skip
    finally:
        torch.set_num_threads(before)


def product_rate(dtype: torch.dtype) -> float:
    """FLOP/s of x W^T as layers compute it: 512 rows, 1,024 to 4,096."""
    x, weight = torch.ones(ROWS, WIDTH, dtype=dtype), torch.ones(OUT, WIDTH, dtype=dtype)
    return 2 * ROWS * WIDTH * OUT / fastest(lambda: matmul.linear(x, weight))


def bandwidth() -> float:
    """Bytes/s of `a + b` on 64 MiB each: two read, one written."""
    a, b = torch.ones(1 << 24), torch.ones(1 << 24)
    out = torch.empty_like(a)
    return 3 * a.nbytes / fastest(lambda: torch.add(a, b, out=out))


def disk(folder: Path | None) -> float:
    """Bytes/s of 64 MiB written and flushed."""
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder if folder is not None and folder.is_dir() else None) as file:
        began = time.perf_counter()
        for _ in range(64):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return 64 * len(block) / (time.perf_counter() - began)


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of a few calls after the first, by the clock of this process's threads."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        for _ in range(REPEATS):
            work()
        times.append((time.process_time() - began) / REPEATS / torch.get_num_threads())
    return max(min(times), 1e-9)


def libraries() -> int:
    """Bytes that a worker holds before it opens a model; half a GiB where the system does not say."""
    if sys.platform != "linux":
        return GIB // 2
    try:
        done = subprocess.run([sys.executable, "-c", EMPTY], capture_output=True, text=True, check=True, timeout=300)
        return int(done.stdout) * 1024
    except (subprocess.SubprocessError, ValueError):  # ended by a limit, say
        return GIB // 2
