"""Compiled programs, kept on disk: a command that runs again, or another of the same shapes, compiles nothing anew."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import stat
import time
from importlib import metadata
from pathlib import Path

from ncjax.core.machine import cache_folder

VARIABLE = "NCJAX_COMPILE_CACHE"  # a folder, or "off"
BYTES = 2 << 30  # kept at most; a quick start takes 6 MB on a CPU
SETTINGS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # hundreds of small programs add up
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def root() -> Path | None:
    """Where programs are kept, of all versions and kinds of machine; None where they are not."""
    asked = os.environ.get(VARIABLE, "")
    if asked.lower() == "off":
        return None
    with contextlib.suppress(RuntimeError):  # no home
        return Path(asked) if asked else cache_folder() / "xla"
    return None


def machine() -> str:
    """A name for what compiled code depends on beside what JAX looks at: the XLA in use, and the processor's abilities.

    A home that machines share would else hand one machine what was compiled with instructions that only another has.
    """
    able = ""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        able = next(x for x in lines if x.startswith(("flags", "Features")))
    digest = hashlib.sha256(f"{platform.machine()} {platform.processor()} {able}".encode()).hexdigest()
    return f"jaxlib-{metadata.version('jaxlib')}-{digest[:12]}"


def shrink(folder: Path, limit: int) -> None:
    """Deletes what was used least lately until three quarters of `limit` bytes are left, where there is more than that."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process may shrink it too
            there = path.stat()
            if stat.S_ISREG(there.st_mode):
                found.append((max(there.st_atime, there.st_mtime), there.st_size, path))
    held = sum(size for _, size, _ in found)
    if held <= limit:
        return
    for _, size, path in sorted(found):
        with contextlib.suppress(OSError):
            path.unlink()
        held -= size
        if held <= limit * 3 // 4:
            return


def keep() -> None:
    """Has JAX keep what it compiles, unless the user has set a folder of JAX's own. Call it before JAX is imported.

    The key of a program is JAX's: its code, the compiler's version and flags, the devices. What does not read is compiled
    again.
    """
    folder = root()
    if folder is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    own = folder / machine()
    try:
        own.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written
        return
    if not os.access(own, os.W_OK):
        return
    stamp = folder / "looked"  # walking through thousands of files takes a while: once a day
    with contextlib.suppress(OSError):
        if not stamp.exists() or time.time() - stamp.stat().st_mtime > 86_400:
            stamp.touch()
            shrink(folder, BYTES)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(own)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
