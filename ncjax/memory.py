"""Freed memory stays with the process, so that a training step does not fetch it anew from the kernel."""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of malloc.h


def keep() -> bool:
    """Tells glibc's malloc to keep what is freed; without effect once JAX has started its threads, or without glibc.

    XLA allocates the intermediate results of a step in one piece and frees it after the step. By default glibc returns so
    large a piece to the kernel, which hands it out again page by page, zeroed: 73 000 page faults in each step of a
    ResNet-20 with 128 images, a quarter of the step's time (`bench/memory.py`). One arena, because those of threads hold
    64 MB at most, and what is larger is mapped anew each time. The price: a process does not shrink below its peak.

    Returns:
      Whether malloc took it; `NCJAX_MALLOC=system` leaves malloc alone.
    """
    if os.environ.get("NCJAX_MALLOC") == "system":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, -1), mallopt(M_ARENA_MAX, 1)])
