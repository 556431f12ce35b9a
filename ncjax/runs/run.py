"""A run as its study sees it: it says things, writes rows, keeps cells, shows progress, hears Ctrl-C."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from ncjax.core import cli, hosts, memory
from ncjax.core.errors import UserError
from ncjax.core.files import read_json, to_json, write_text
from ncjax.data import Dataset
from ncjax.runs.loggers import LOGGERS, Logger, check
from ncjax.runs.rows import ROW_KEYS, read_rows


class _Console(Console):
    """A console whose reader may go away (`| head`): the run goes on."""

    def on_broken_pipe(self) -> None:
        """Lets standard output lead nowhere."""
        cli.unheard()


class Run:
    """One run in `workdir`: `say` things, write metric `rows`, show `progress`."""

    def __init__(self, workdir: str | Path, *, console: Console | None = None):
        self.workdir = Path(workdir)
        # A log file has no width: room for the tables, instead of the 80 columns that would cut them.
        width = None if sys.stdout is not None and sys.stdout.isatty() else 160
        self.console = console or _Console(highlight=False, soft_wrap=True, width=width)
        self._progress: Progress | None = None
        self.signum = 0  # by which the user asked to stop while `guarded`
        self.notes: list[str] = []  # on the data, for the record
        self._loggers: dict[str, Logger] = {}

    @property
    def writes(self) -> bool:
        """Whether this process writes files and prints (the first one of a multi-host job)."""
        return jax.process_index() == 0

    def say(self, text: str) -> None:
        """Prints a line."""
        if self.writes:
            self.console.print(text, markup=False)

    def announce(self, dataset: Dataset, network: dict[str, Any] | None = None) -> None:
        """Prints the network and what it is fed, and the size and content hash of each split.

        Raises:
          UserError: the run was begun with other images; both hashes are named.
        """
        found = dataset.describe()
        if network and "layout" in network:
            self.say(
                "network {model} from {weights} [{sha256:.12}], {layout}; resize {resize} {interpolation}".format(**network)
            )
        splits = "  ".join(f"{name} {x['size']} [{x['hash']}]" for name, x in found.items())
        skipped = f"  ({dataset.skipped} images did not decode and were left out)" if dataset.skipped else ""
        self.say(f"data {dataset.name}: {len(dataset.class_names)} classes, {splits}{skipped}")
        for note in dataset.notes:
            self.say(f"  note: {note}")
        left = f"{dataset.skipped} images did not decode and were left out"
        self.notes += [f"{dataset.name}: {note}" for note in (*dataset.notes, *([left] if dataset.skipped else []))]
        path = self.workdir / "data.json"
        begun = read_json(path) if path.exists() else {}
        if not isinstance(begun, dict):
            raise UserError(f"{path} was damaged; delete it if the data of this run are what they were")
        then, now = (
            {k: x.get("hash") for k, x in many.items() if isinstance(x, dict)}
            for many in (begun.get(dataset.name, found), found)
            if isinstance(many, dict)
        )
        if then != now:
            raise UserError(
                f"{dataset.name} is not what it was when the run in {self.workdir} was begun: "
                + ", ".join(f"{k} {then.get(k)} then, {now.get(k)} now" for k in then | now if then.get(k) != now.get(k))
                + "; put it back, or choose another --workdir"
            )
        if self.writes and dataset.name not in begun:
            write_text(path, to_json({**begun, dataset.name: found}, indent=1))

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Prints a table; one that is wider than the terminal in pieces, the first column before each."""
        if not self.writes:
            return
        for i, part in enumerate(_pieces(columns, rows, self.console.width)):
            table = Table(title=None if i else Text(title), title_justify="left")
            for k in part:
                table.add_column(Text(columns[k]), no_wrap=True)
            for row in rows:
                table.add_row(*(Text(row[k]) for k in part))
            self.console.print(table)

    def rows(self, epoch: int, phase: str, split: str, layer: str, values: dict[str, float]) -> None:
        """Appends one row per metric to metrics.jsonl; values that are not finite are null, and go nowhere else."""
        if not self.writes:
            return
        lines = [to_json(dict(zip(ROW_KEYS, (epoch, phase, split, layer, k, v), strict=True))) for k, v in values.items()]
        with open(self.workdir / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        finite = {f"{phase}/{split}/{layer}/{k}": float(v) for k, v in values.items() if v is not None and math.isfinite(v)}
        for name, logger in list(self._loggers.items()):
            self._told(name, functools.partial(logger.log, finite, epoch))

    def _told(self, name: str, tell: Callable[[], Any]) -> None:
        """Tells a logger something; one that fails is let go of, and the run goes on."""
        try:
            tell()
        except Exception as e:
            self._loggers.pop(name, None)
            self.say(f"log_to={name}: {cli.one_line(e)[:200]}; rows go to metrics.jsonl alone from here")

    def log_to(self, names: Sequence[str], epoch: int) -> None:
        """Sends rows from now on, of epochs from `epoch`, to these too, of `runs.loggers`.

        Raises:
          UserError: one is not installed.
        """
        check(names)
        if self.writes:
            self._loggers = {name: LOGGERS[name](self.workdir, epoch) for name in names}

    def close_loggers(self) -> None:
        """Ends what `log_to` began."""
        for name, logger in list(self._loggers.items()):
            self._told(name, logger.close)
        self._loggers = {}

    def forget_rows(self, drop: Callable[[dict[str, Any]], bool] = lambda row: True) -> None:
        """Drops rows that will be measured again, and a last line that a kill cut short."""
        path = self.workdir / "metrics.jsonl"
        if self.writes and path.exists():
            write_text(path, "".join(to_json(row) + "\n" for row in read_rows(self.workdir) if not drop(row)))

    def once(self, key: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `compute` returned when it was first asked for `key` in this workdir: a sweep that stopped goes on."""
        name = "_".join(f"{k}={v}" for k, v in key.items())
        slug = "".join(c if c.isalnum() or c in "=._-" else "-" for c in name)[:150]
        path = self.workdir / "cells" / f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.json"
        before = json.loads(hosts.first(lambda: to_json(_cell(path) if path.exists() else None)))
        if before is not None:
            return before
        computed = compute()
        found = json.loads(hosts.first(lambda: to_json(computed)))  # seconds differ between hosts
        if self.writes:
            path.parent.mkdir(exist_ok=True)
            write_text(path, to_json({"sha256": _digest(found), **found}))
        memory.let_go()
        return found

    def progress(self, epoch: int, done: int, steps: int, loss: float, accuracy: float, rate: float, left: float) -> None:
        """A bar on a terminal; nothing when piped, where each epoch prints its own line."""
        self.bar(
            f"epoch {epoch + 1}",
            done,
            steps,
            f"loss {loss:.4f}  acc {100 * accuracy:.1f} %  {rate:,.0f} images/s  "
            f"{int(left) // 60}:{int(left) % 60:02d} left",
        )

    def shows(self) -> bool:
        """Whether there is a terminal to show bars on."""
        return self.console.is_terminal and self.writes

    def bar(self, title: str, done: int, total: int, text: str) -> None:
        """A bar on a terminal, a new one for each title; nothing when piped."""
        if not self.shows():
            return
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                console=self.console,
                transient=True,
            )
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

    def interrupted(self) -> int:
        """The signal by which this run, on any host, was asked to stop while `guarded`; 0 where it was not, or not yet."""
        return hosts.stop_now(self.signum)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Turns the first Ctrl-C or SIGTERM into a request to stop at the next step; a second one stops at once."""

        def request(signum: int, frame: Any) -> None:
            if self.signum:
                raise KeyboardInterrupt(signum)
            self.signum = signum
            if self.writes:  # not through the console, which may be in the middle of a line
                with contextlib.suppress(OSError):
                    os.write(2, b"stopping after this step (Ctrl-C again to stop at once) ...\n")

        try:
            previous = {sign: signal.signal(sign, request) for sign in cli.STOPS}
        except ValueError:  # not the main thread: a notebook's executor, say
            yield
            return
        try:
            yield
        finally:
            for sign, handler in previous.items():
                signal.signal(sign, handler)
            self.end_progress()


def _pieces(columns: list[str], rows: list[list[str]], width: int) -> list[list[int]]:
    """Which columns stand side by side so that none is cut: the first is in every piece."""
    needed = [max(map(len, cells)) + 3 for cells in zip(columns, *rows, strict=True)]
    pieces, room = [[0]], width - needed[0] - 1
    for k in range(1, len(columns)):
        if needed[k] > room and len(pieces[-1]) > 1:
            pieces.append([0])
            room = width - needed[0] - 1
        pieces[-1].append(k)
        room -= needed[k]
    return pieces


def _digest(found: Any) -> str:
    return hashlib.sha256(to_json(found).encode()).hexdigest()[:16]


def _cell(path: Path) -> dict[str, Any]:
    """What a sweep has found before.

    Raises:
      UserError: the file is no longer what was written.
    """
    found = read_json(path)
    if not isinstance(found, dict) or found.pop("sha256", None) not in (None, _digest(found)):
        raise UserError(f"{path} was damaged, or changed by hand; delete it to compute it again")
    return found
