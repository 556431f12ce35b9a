"""Memory of the process: what is freed stays, so that steps do not fetch it anew; compiled programs do not pile up."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of malloc.h


def keep() -> bool:
    """Tells glibc's malloc to keep what is freed; without effect once JAX has started its threads, or without glibc.

    XLA allocates the intermediate results of a step in one piece and frees it after the step. By default glibc returns so
    large a piece to the kernel, which hands it out again page by page, zeroed: 73 000 page faults in each step of a
    ResNet-20 with 128 images, a quarter of the step's time (`bench/memory.py`). One arena, because those of threads hold
    64 MB at most, and what is larger is mapped anew each time. The price: a process does not shrink, and its peak, in
    pieces of many sizes, was 1.3 to 2.3 times as large.

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


def let_go(limit: int | None = None) -> bool:
    """Forgets compiled programs once they hold half of the memory mappings that Linux grants a process.

    Every program compiled for a CPU takes some, and XLA crashes when none is left: "LLVM compilation error: Cannot allocate
    memory", then a segmentation fault, after some 15 pairs of network and data set in `studies.backbones`.

    Args:
      limit: mappings a process may have; None asks the kernel.

    Returns:
      Whether they were forgotten; what runs again is compiled again.
    """
    try:
        limit = limit or int(Path("/proc/sys/vm/max_map_count").read_text())
        held = Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:  # not Linux
        return False
    if 2 * held < limit:
        return False
    import jax  # not above: `keep` comes before JAX

    jax.clear_caches()
    gc.collect()
    return True
