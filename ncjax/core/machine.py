"""What a machine lends to this process: cores, and a folder for what can be made again. Imports no JAX."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache of ncjax.

    Raises:
      RuntimeError: there is no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "ncjax").expanduser()


def cores() -> int:
    """Cores that this process may use: its affinity, and the limit of its control group."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = count if quota == "max" else min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return count
