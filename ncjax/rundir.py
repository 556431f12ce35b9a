"""A run's directory: its config, its rows, its results, and whether it is new, unfinished or done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from ncjax import cpu, memory
from ncjax.data import Dataset
from ncjax.types import UserError
from ncjax.whole import replacing

ROW_KEYS = ("epoch", "split", "layer", "metric", "value")


class Run:
    """One run in `workdir`: `say` things, write metric `rows`, show `progress`."""

    def __init__(self, workdir: str | Path, *, console: Console | None = None):
        self.workdir = Path(workdir)
        # A log file has no width: room for the tables, instead of the 80 columns that would cut them.
        width = None if sys.stdout.isatty() else 160
        self.console = console or Console(highlight=False, soft_wrap=True, width=width)
        self._progress: Progress | None = None
        self._interrupted = False

    @property
    def writes(self) -> bool:
        """Whether this process writes files and prints (the first one of a multi-host job)."""
        return jax.process_index() == 0

    def say(self, text: str) -> None:
        """Prints a line."""
        if self.writes:
            self.console.print(text, markup=False)

    def announce(self, dataset: Dataset, network: dict[str, Any] | None = None) -> None:
        """Prints the network and what it is fed, and the size and content hash of each split."""
        if network and "layout" in network:
            self.say("network {model} from {weights} [{sha256:.12}], {layout}; resize {resize} {interpolation}".format(
                **network))
        splits = "  ".join(f"{name} {x['size']} [{x['hash']}]" for name, x in dataset.describe().items())
        skipped = f"  ({dataset.skipped} images did not decode and were left out)" if dataset.skipped else ""
        self.say(f"data {dataset.name}: {len(dataset.class_names)} classes, {splits}{skipped}")

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Prints a table."""
        if self.writes:
            table = Table(title=title, title_justify="left")
            for column in columns:
                table.add_column(column, no_wrap=True)
            for row in rows:
                table.add_row(*row)
            self.console.print(table)

    def rows(self, epoch: int, split: str, layer: str, values: dict[str, float]) -> None:
        """Appends one row per metric to metrics.jsonl; values that are not finite are null."""
        if not self.writes:
            return
        lines = [json.dumps(dict(zip(ROW_KEYS, (epoch, split, layer, k, v if math.isfinite(v) else None), strict=True)))
                 for k, v in values.items()]
        with open(self.workdir / "metrics.jsonl", "a") as file:
            file.write("".join(line + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())

    def forget_rows(self, drop: Callable[[dict[str, Any]], bool] = lambda row: True) -> None:
        """Drops rows that will be measured again, and a last line that a kill cut short."""
        path = self.workdir / "metrics.jsonl"
        if self.writes and path.exists():
            _write(path, "".join(json.dumps(row) + "\n" for row in read_rows(self.workdir) if not drop(row)))

    def once(self, key: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `compute` returned when it was first asked for `key` in this workdir: a sweep that stopped goes on."""
        name = "_".join(f"{k}={v}" for k, v in key.items())
        slug = "".join(c if c.isalnum() or c in "=._-" else "-" for c in name)[:150]
        path = self.workdir / "cells" / f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.json"
        if path.exists():
            return read_json(path)
        found = json.loads(json.dumps(compute()))
        if self.writes:
            path.parent.mkdir(exist_ok=True)
            _write(path, json.dumps(found))
        memory.let_go()
        return found

    def progress(self, epoch: int, done: int, steps: int, loss: float, accuracy: float, rate: float,
                 left: float) -> None:
        """A bar on a terminal; nothing when piped, where each epoch prints its own line."""
        self.bar(f"epoch {epoch + 1}", done, steps, f"loss {loss:.4f}  acc {100 * accuracy:.1f} %  {rate:,.0f} images/s  "
                 f"{int(left) // 60}:{int(left) % 60:02d} left")

    def shows(self) -> bool:
        """Whether there is a terminal to show bars on."""
        return self.console.is_terminal and self.writes

    def bar(self, title: str, done: int, total: int, text: str) -> None:
        """A bar on a terminal, a new one for each title; nothing when piped."""
        if not self.shows():
            return
        if self._progress is None:
            self._progress = Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"),
                                      console=self.console, transient=True)
            self._progress.start()
        if not self._progress.tasks or self._progress.tasks[-1].description != title:
            for task in list(self._progress.task_ids):
                self._progress.remove_task(task)
            self._progress.add_task(title, total=total, text="")
        self._progress.update(self._progress.task_ids[-1], completed=done, text=text)

    def end_progress(self) -> None:
        """Takes the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def interrupted(self) -> bool:
        """Whether Ctrl-C was pressed while `guarded`."""
        return self._interrupted

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Turns the first Ctrl-C into a request to stop at the next step; a second one stops at once."""

        def request(signum: int, frame: Any) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
            self.say("stopping after this step (Ctrl-C again to stop at once) ...")

        try:
            previous = signal.signal(signal.SIGINT, request)
        except ValueError:  # not the main thread: a notebook's executor, say
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
            self.end_progress()


def _write(path: Path, text: str) -> None:
    """Replaces a file in one step."""
    with replacing(path) as file:
        file.write(text.encode())


def read_json(path: Path) -> Any:
    """A JSON file, or a one-line error naming it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except ValueError as e:
        raise UserError(f"{path} is not valid JSON ({e}); it may be truncated") from None


def read_rows(workdir: str | Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a last line that a kill cut short is left out."""
    path = Path(workdir) / "metrics.jsonl"
    rows = []
    lines = path.read_text().splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise UserError(f"{path}, line {number} is not valid JSON") from None
    return rows


def summary(workdir: str | Path, epoch: int) -> dict[str, dict[str, dict[str, float | None]]]:
    """The rows of one epoch as {split: {layer: {metric: value}}}."""
    out: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in read_rows(workdir):
        if row["epoch"] == epoch:
            out.setdefault(row["split"], {}).setdefault(row["layer"], {})[row["metric"]] = row["value"]
    return out


def _commit() -> str | None:
    """The commit of the checkout this package runs from, with "+" if it has changes."""

    def git(*args: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def environment() -> dict[str, Any]:
    """What a number depends on besides its config."""
    names = ("ncjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "versions": versions,
        "python": platform.python_version(),
        "devices": [str(d.device_kind) for d in jax.devices()],
        "processes": jax.process_count(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "machine": platform.machine(),
        "convolutions": cpu.implementation(),
        "pages": memory.pages(),
        "commit": _commit(),
        "arguments": sys.argv[1:],
    }


def _prepare(workdir: Path, config: dict[str, Any]) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as e:
        raise UserError(f"cannot write to workdir {workdir} ({e.strerror}); choose another with --workdir") from None
    path = workdir / "config.json"
    if path.exists():
        old = read_json(path)
        differing = [f"{k} ({old.get(k, 'absent')!r} there, {config.get(k, 'absent')!r} now)"
                     for k in sorted(old.keys() | config.keys()) if old.get(k) != config.get(k)]
        # A chain that has not finished may go on with other steps: each step's own folder is guarded.
        growing = config["study"] == "chain" and not (workdir / "results.json").exists()
        if differing and growing:
            _write(path, json.dumps(config, indent=1))
        elif differing:
            raise UserError(f"{workdir} holds a run with another config: {', '.join(differing)}; "
                            "choose another --workdir, or delete that one")
    elif any(p.name != "report.html" for p in workdir.iterdir()):
        raise UserError(f"{workdir} is not empty and holds no run; choose another --workdir")
    else:
        _write(path, json.dumps(config, indent=1))


def execute(study: Callable[..., dict[str, Any]], name: str, config: dict[str, Any], run: Run) -> dict[str, Any]:
    """Runs a study in `run.workdir`, or says that it is done.

    A finished run is returned as it is; an unfinished one goes on; a workdir of another config is refused with the
    differing keys named.

    Raises:
      UserError: the workdir cannot be written, or holds another run or other files.
    """
    config = json.loads(json.dumps({"study": name, **config}))
    _prepare(run.workdir, config)
    results = run.workdir / "results.json"
    if results.exists():
        run.say(f"{run.workdir}: already finished; delete it to run again")
        return read_json(results)
    started = time.time()
    try:
        found = study(run=run, **{k: v for k, v in config.items() if k != "study"})
    except UserError:
        # Nothing was computed: leave no config behind that would stand in the way of the corrected command.
        if run.writes and {p.name for p in run.workdir.iterdir()} <= {"config.json"}:
            (run.workdir / "config.json").unlink()
            run.workdir.rmdir()
        raise
    record = {"study": name, "config": config, "results": found, "seconds": round(time.time() - started, 2),
              "environment": environment()}
    if run.writes:
        _write(results, json.dumps(record, indent=1))
    return record
