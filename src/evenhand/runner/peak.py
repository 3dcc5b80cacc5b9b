"""The most memory that this process holds at once, from a moment on."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET = "5"
"""What is written to `clear_refs` to start the high-water mark of resident memory anew (proc(5))."""


def begin() -> None:
    """From here on `reached` counts; where the system cannot forget an earlier peak, it counts from the process's start."""
    with suppress(OSError):
        _CLEAR.write_text(_RESET)
    if (cuda := _cuda()) is not None:
        cuda.reset_peak_memory_stats()


def reached() -> int | None:
    """Bytes of the accelerator where one is in use, else of resident memory; None on systems that do not say."""
    if (cuda := _cuda()) is not None:
        return int(cuda.max_memory_reserved())
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def _cuda() -> Any:
    """torch's CUDA where this process has begun to use it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
