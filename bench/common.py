"""What the benchmarks share: runs in turns, what other processes took meanwhile, peak memory, the record."""

from __future__ import annotations

import sys
from pathlib import Path

from ncjax.core import memory

if Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent:  # as every run of a study
    memory.huge_pages()

import json
import os
import shlex
import statistics
import time
from collections.abc import Callable
from typing import Any

from ncjax.runs.environment import environment

PAUSE = 0.5  # seconds


def timed(job: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result of a warm run: after a pause, since the threads of the contender before spin when it is done, and
    after a run that does not count, since a pause lets caches and threads go cold."""
    time.sleep(PAUSE)
    job()
    started = time.perf_counter()
    found = job()
    return time.perf_counter() - started, found


def busy() -> tuple[float, float]:
    """CPU seconds of all processes, and of this one, so far."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK"), sum(os.times()[:2])


def in_turns(jobs: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, list[float]], float]:
    """(seconds of every run by job, share of the cores that other processes took), each turn in another order."""
    names, seconds = list(jobs), {name: [] for name in jobs}
    start, began = busy(), time.perf_counter()
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(timed(jobs[name])[0])
    end, cores = busy(), len(os.sched_getaffinity(0))
    return seconds, ((end[0] - start[0]) - (end[1] - start[1])) / (cores * (time.perf_counter() - began))


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Median of every job's runs."""
    return {name: statistics.median(s) for name, s in seconds.items()}


def rise_of_peak(job: Callable[[], Any]) -> float:
    """How far the peak memory of this process rises while a warm job runs, in MB."""
    with memory.measured_peak() as found:
        job()
    return (found.rise or 0) / 2**20


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def write(path: str, **found: Any) -> None:
    """Writes a record: the command, what was found, and what it depends on."""
    others = {name: sys.modules[name].__version__ for name in ("torch", "sklearn") if name in sys.modules}
    around = environment()
    around["versions"] |= others
    words = ["python", f"bench/{Path(sys.argv[0]).name}", *around.pop("arguments")]
    record = {"command": shlex.join(words), "cpu": _cpu(), **around, "load": os.getloadavg()[0], **found}
    Path(path).write_text(json.dumps(record, indent=1))
