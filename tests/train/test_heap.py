from __future__ import annotations

import ctypes
import platform

import pytest

from evenhand.train import heap


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_free_memory_in_the_middle_of_the_heap_is_given_back():
    """128 MB in blocks below malloc's own threshold, all freed but the last: the heap cannot shrink from its end."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    blocks = [libc.malloc(64 << 10) for _ in range(2048)]
    for block in blocks:
        ctypes.memset(block, 1, 64 << 10)
    for block in blocks[:-1]:
        libc.free(block)
    before = resident()
    heap.give_back()
    assert before - resident() > 100 << 20
    libc.free(blocks[-1])


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(heap, "_trim", lambda: None)
    heap.give_back()


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
