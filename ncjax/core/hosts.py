"""The processes of one run, on one machine or many: how they find one another, agree, and end together.

They talk through the key-value store of `jax.distributed`, which the first process holds. A thread of each says that its
process is alive and looks for three things of the others: that one was asked to stop, that one has ended before its time,
that one has not been heard of. `jax.distributed` by itself notices a lost process after 100 s, and a signal that reaches
one process alone would leave the others in a collective that never ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import jax

from ncjax.core import cli
from ncjax.core.errors import UserError

BEAT = 0.25  # seconds between two looks
GONE = 10.0  # seconds without a sign of a process after which it counts as lost
PATIENCE = 3.0  # seconds in which processes end by themselves, once one has
NEVER = 1 << 40  # milliseconds: whoever waits is ended by the thread if what is waited for cannot come
PREFIX = "ncjax/"
LOST = 1  # exit code where another process was lost

_here: Member | None = None  # of this process; None where there is one process only


class Member:
    """This process among the others. `client` has the key-value store, `rank` of `count` is this process's number."""

    def __init__(self, client: Any, rank: int, count: int, leave: Callable[[int], Any] = os._exit):
        self.client, self.rank, self.count, self.leave = client, rank, count, leave
        self.asked = 0  # the signal that asked some process to stop
        self.checks = 0  # how often this process has asked whether to stop
        self.said = 0  # of values that the first has said
        self._until: int | None = None  # the check at which all stop
        self._posted, self._agreed, self._over = False, threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._beats: dict[str, tuple[str, float]] = {}  # last sign of each process, and when it came
        self._thread = threading.Thread(target=self._watch, name="ncjax-hosts", daemon=True)
        self._thread.start()

    def _set(self, key: str, value: object) -> None:
        self.client.key_value_set(PREFIX + key, str(value), allow_overwrite=True)

    def _all(self, key: str) -> dict[str, str]:
        """What processes have said under a key, by their number."""
        return {name.rsplit("/", 1)[-1]: value for name, value in self.client.key_value_dir_get(f"{PREFIX}{key}/")}

    def _watch(self) -> None:
        beat = 0
        while not self._over.wait(BEAT):
            beat += 1
            try:
                self._set(f"alive/{self.rank}", f"{beat} {socket.gethostname()}")
                ended, alive, stop = self._all("ended"), self._all("alive"), self._all("stop")
                if ended and not self._over.is_set():
                    who, (code, _, line) = min(ended.items())[0], min(ended.items())[1].partition(" ")
                    self._set(f"heard/{self.rank}", "")
                    # This process may be ending too, with work to finish; and all are to hear before the store goes.
                    if self._over.wait(PATIENCE):
                        return
                    self._end(int(code), f"process {who} has ended: {line}")
                for who, value in alive.items():
                    if self._beats.get(who, ("", 0.0))[0] != value:
                        self._beats[who] = value, time.monotonic()
                    elif time.monotonic() - self._beats[who][1] > GONE and not self._over.is_set():
                        host = value.partition(" ")[2]
                        self._end(LOST, f"process {who} on {host} is gone; {AGAIN}")
                if stop:
                    self._settle(int(min(stop.items())[1]))
            except Exception as e:  # whatever the store's client raises where the store is no more
                if not self._over.is_set():
                    reason = (str(e).splitlines() or [type(e).__name__])[0][:80]
                    self._end(LOST, f"process 0 is gone ({reason}); {AGAIN}")

    def _end(self, code: int, line: str) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            os.write(2, f"ncjax: {line}\n".encode())
        self.leave(code)

    def _settle(self, signum: int) -> None:
        """Finds the check at which all stop: the first that no process has passed."""
        with self._lock:
            self.asked = self.asked or signum
            if not self._posted:  # from here on no check is passed before all have said where they are
                self._posted = True
                self._set(f"at/{self.rank}", self.checks)
        at = self._all("at")
        if len(at) == self.count and not self._agreed.is_set():
            self._until = max(map(int, at.values())) + 1
            self._agreed.set()

    def stop_now(self, signum: int) -> int:
        """Whether to stop here, asked by all processes equally often: the signal that one of them got, or 0.

        Args:
          signum: that this process got, or 0.
        """
        if signum and not self.asked:
            self.asked = signum
            self._set(f"stop/{self.rank}", signum)
        with self._lock:
            if not self._posted:
                self.checks += 1
                return 0
        self._agreed.wait()
        self.checks += 1
        assert self._until is not None
        return self.asked if self.checks >= self._until else 0

    def first(self, value: Callable[[], str]) -> str:
        """What `value` is to the first process; the others are told, and do not compute it."""
        key = f"{PREFIX}said/{self.said}"
        self.said += 1
        if self.rank == 0:
            found = value()
            self.client.key_value_set(key, found)
            return found
        return self.client.blocking_key_value_get(key, NEVER)

    def everywhere(self, name: str, flag: bool) -> bool:
        """Whether a flag is set at every process; each says it once under a name, and waits for all."""
        self.client.key_value_set(f"{PREFIX}{name}/{self.rank}", str(flag))
        said = [self.client.blocking_key_value_get(f"{PREFIX}{name}/{rank}", NEVER) for rank in range(self.count)]
        return all(x == str(True) for x in said)

    def barrier(self) -> None:
        """Waits for all."""
        self.said += 1
        self.client.wait_at_barrier(f"{PREFIX}barrier/{self.said}", NEVER)

    def close(self) -> None:
        """Ends well, all at once."""
        self.barrier()
        self._over.set()
        self._thread.join()
        jax.distributed.shutdown()

    def end(self, code: int, line: str) -> None:
        """Says that this process ends before its time, so that the others do too, and waits until they have heard."""
        self._over.set()
        with contextlib.suppress(Exception):  # the store may be gone with the first process
            self._set(f"ended/{self.rank}", f"{code} {line}")
            self._set(f"heard/{self.rank}", "")
            until = time.monotonic() + 2 * PATIENCE
            while self.rank == 0 and len(self._all("heard")) < self.count and time.monotonic() < until:
                time.sleep(BEAT)
        cli.flush()
        self.leave(code)  # Python's own end would wait for the others


AGAIN = "run the same command again, at every process, to go on"


def join(
    coordinator: str | None = None,
    count: int | None = None,
    rank: int | None = None,
    *,
    timeout: int = 300,
) -> None:
    """Makes this process one of several: by arguments, or as the cluster says (SLURM, TPU pods, Open MPI, Kubernetes).

    Args:
      coordinator: "HOST:PORT" of the first process.
      count, rank: how many processes there are, and which this is, from 0.
      timeout: seconds to wait for the others; then the process ends with one line and exit code 2.

    Raises:
      UserError: this is no cluster that JAX knows and arguments are missing, or the address is none.
    """
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise UserError(f"--coordinator={coordinator}: expected HOST:PORT of the first process")
    missing = f"ncjax: not all of the {count or ''} processes came to {coordinator or 'the first'} within {timeout} s\n"
    # JAX would abort the process, with a stack trace.
    late = threading.Timer(timeout, lambda: (os.write(2, missing.encode()), os._exit(2)))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            coordinator, count, rank, initialization_timeout=2 * timeout + 60, heartbeat_timeout_seconds=int(10 * GONE)
        )
    except (ValueError, TypeError) as e:
        raise UserError(
            f"--distributed: {str(e).rstrip('.')}: no cluster that JAX knows (SLURM, TPU pod, Open MPI, Kubernetes); start "
            "each process with --coordinator=HOST:PORT --process-count=N --process-id=I"
        ) from None
    except RuntimeError as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0][:160]
        raise UserError(f"the processes did not find one another ({reason})") from None
    finally:
        late.cancel()
    _member()


def _member() -> Member | None:
    """This process among the others, also where the caller has initialised `jax.distributed`."""
    global _here
    from jax._src.distributed import global_state  # the store has no public name

    if _here is None and global_state.client is not None and (global_state.num_processes or 1) > 1:
        _here = Member(global_state.client, global_state.process_id, global_state.num_processes)
    return _here


def stop_now(signum: int) -> int:
    """`Member.stop_now`; the signal itself where there is one process."""
    return signum if (here := _member()) is None else here.stop_now(signum)


def first(value: Callable[[], str]) -> str:
    """What `value` is to the first process, for all."""
    return value() if (here := _member()) is None else here.first(value)


def everywhere(name: str, flag: bool) -> bool:
    """Whether a flag is set at every process; each is to say it once."""
    return flag if (here := _member()) is None else here.everywhere(name, flag)


def barrier() -> None:
    """Waits for all processes: what the first has written before is there after."""
    if (here := _member()) is not None:
        here.barrier()


def wait_for_news() -> None:
    """Waits as long as it takes to hear of another process that has ended or is lost; that ends this one."""
    if _here is not None:
        time.sleep(GONE + 4 * BEAT)


def close() -> None:
    """Ends the work together, well."""
    global _here
    if _here is not None:
        _here.close()
        _here = None


def end(code: int, line: str) -> None:
    """Ends the work of all, because this process cannot go on."""
    if _here is not None:
        _here.end(code, line)
