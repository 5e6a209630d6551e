"""Memory of a process that runs for years: what a burst has needed goes back to the system."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # malloc.h


def bound_heap() -> None:
    """Give memory back after a burst: one heap for all threads, and large blocks by mmap, whatever was freed before.

    By default glibc keeps a heap for each thread, and raises the threshold with every large block that is freed: what a
    backlog has needed stays (mallopt(3)). Where there is no mallopt (musl), nothing is to be done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, 128 * 1024)
