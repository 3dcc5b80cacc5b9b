from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import importlib, os, sys, torch
def refuse(*a, **k): raise AssertionError("asked for a device")
for name in ("is_available", "device_count", "_lazy_init", "get_device_properties", "get_device_capability", "current_device"):
    setattr(torch.cuda, name, refuse)
import evenhand.runner.preload
from evenhand.stages import STAGES
for kind in STAGES:
    importlib.import_module(f"evenhand.stages.{kind}")
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.slow
def test_what_the_fork_server_imports_can_be_forked():
    """One thread only, and no question about devices: after either, a forked worker could hang or fail on a GPU."""
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1"]
