"""One process at a time in a working directory."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ncjax.core.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = ".ncjax.lock"


def holder(workdir: Path) -> str:
    """Who holds a folder; "" where nobody does."""
    try:
        return (workdir / NAME).read_text(errors="replace")
    except OSError:
        return ""


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Holds a folder, by a lock that the system lets go of when its holder dies, however that is.

    NFS of version 4 knows such locks between machines too; where a file system knows none, nothing is held.

    Raises:
      UserError: another process holds it (the line says which), or nothing can be written there.
    """
    while True:
        try:
            file = os.open(workdir / NAME, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError as e:
            raise UserError(f"cannot write to workdir {workdir} ({e.strerror}); choose another with --workdir") from None
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(file, 200).decode(errors="replace") or "another process"
            os.close(file)
            raise UserError(f"{workdir} is in use by {who}; wait for it, or choose another --workdir") from None
        except OSError:  # a file system without locks
            pass
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file), os.stat(workdir / NAME)):
                break
        os.close(file)  # its last holder took it away meanwhile
    try:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()} since {now}".encode())
        os.fsync(file)  # other hosts read it
        yield
    finally:
        (workdir / NAME).unlink(missing_ok=True)
        os.close(file)
