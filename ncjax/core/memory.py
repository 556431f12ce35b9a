"""Memory of the process: huge pages, so that steps spend no time on page faults; compiled programs do not pile up."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ncjax.core.errors import UserError

TUNABLE = "glibc.malloc.hugetlb=1"
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def _setting() -> str:
    """What Linux does about huge pages: "always [madvise] never", say."""
    try:
        return THP.read_text().strip()
    except OSError:  # not Linux
        return ""


def why_not() -> str | None:
    """Why malloc gets no huge pages by `TUNABLE`; None where it does, or would in a process started with it."""
    libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {}) else None
    name, _, version = (libc or "").partition(" ")
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 35):
        return f"needs glibc 2.35 or later, this is {libc or 'another C library'}"
    if os.environ.get("NCJAX_MALLOC") == "system":
        return "NCJAX_MALLOC=system"
    setting = _setting()
    return None if "[madvise]" in setting else f"{THP} is not 'madvise' but {setting!r}"


def huge_pages() -> None:
    """Starts this program again with huge pages for malloc, where that helps. Call it first: JAX is imported twice else.

    XLA allocates the intermediate results of a step in one piece and frees it after the step. By default glibc returns so
    large a piece to the kernel, which hands it out again page by page, zeroed: 73 000 page faults in each step of a
    ResNet-20 with 128 images, up to a third of the step's time; 400 with huge pages (`bench/memory.py`). Glibc reads its
    tunables when a process starts, hence the new start; nothing else of the command changes.
    """
    found = os.environ.get("GLIBC_TUNABLES", "")
    if why_not() is not None or "glibc.malloc.hugetlb" in found or not sys.executable:
        return
    os.environ["GLIBC_TUNABLES"] = f"{found}:{TUNABLE}" if found else TUNABLE
    with contextlib.suppress(OSError):  # then it goes on as it is
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def pages() -> str:
    """ "huge" where this process's malloc asks for huge pages, or Linux gives them anyway; else "small"."""
    asked = TUNABLE in os.environ.get("GLIBC_TUNABLES", "") and why_not() is None
    return "huge" if asked or "[always]" in _setting() else "small"


def available() -> int | None:
    """Bytes of memory that this process may still take; None where nothing says."""
    found = []
    with contextlib.suppress(OSError, IndexError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1]))
    with contextlib.suppress(OSError, ValueError):  # a container's own limit
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        found.append(max(0, limit - int((group / "memory.current").read_text())) + _cached(group))
    return min(found, default=None)


def _cached(group: Path) -> int:
    """Bytes that a container holds of files, which it gives back when it needs them."""
    lines = (group / "memory.stat").read_text().splitlines()
    return sum(int(x.split()[1]) for x in lines if x.split()[0] in ("inactive_file", "active_file"))


class Peak:
    """What `measured_peak` found."""

    rise: int | None = None  # bytes; None where nothing tells


@contextlib.contextmanager
def measured_peak() -> Iterator[Peak]:
    """How far the peak of this process's memory rises inside, in bytes: what the host's memory must hold for it.

    Linux tells. What an accelerator holds is not in it.
    """
    found = Peak()
    try:
        _trim()
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of what came before
        before: int | None = _high_water()
    except (OSError, StopIteration):
        before = None
    yield found
    if before is not None:
        found.rise = _high_water() - before


def _trim() -> None:
    """Gives back what was freed and the allocator keeps, which would hide what is needed next."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _high_water() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def room(nbytes: int, what: str, instead: str) -> None:
    """Refuses to begin what cannot fit.

    Args:
      nbytes: that it would take.
      what: would take it, "batch_size=128: a batch".
      instead: what to try.

    Raises:
      UserError: less memory than that is left.
    """
    left = available()
    if left is not None and nbytes > left:
        raise UserError(f"{what} would take {nbytes / 1e9:,.1f} GB, and {left / 1e9:,.1f} GB of memory are left; {instead}")


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
    import jax  # not above: `huge_pages` comes before JAX

    jax.clear_caches()
    gc.collect()
    return True
