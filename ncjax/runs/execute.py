"""A study in a working directory: begun, gone on with, finished, or refused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from ncjax.core import hosts
from ncjax.core.errors import UserError
from ncjax.core.files import read_json, to_json, write_text
from ncjax.core.options import REQUIRED, bind, schema
from ncjax.core.resolve import absolute, study_module
from ncjax.runs import lock
from ncjax.runs.environment import environment
from ncjax.runs.files import FORMAT, check_format, read_record
from ncjax.runs.rows import read_rows
from ncjax.runs.run import Run

FOUND_WITHIN = 10.0  # seconds in which a shared file system shows one host what another wrote
TOLD = ("log_to",)  # keys that change no number
# What a run that was refused may not take with it.
RESULTS = ("**/results.json", "**/metrics.jsonl", "**/cells/*.json", "**/_CHECKPOINT_METADATA", "parts/**/sums.npz")


@contextlib.contextmanager
def _made(workdir: Path) -> Iterator[None]:
    """Makes a folder, and takes it away again, with the parents that were made for it, where it is refused empty."""
    made = [p for p in (workdir, *workdir.parents) if not p.exists()]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"cannot write to workdir {workdir} ({e.strerror}); choose another with --workdir") from None
    try:
        yield
    except UserError:
        with contextlib.suppress(OSError):  # the first that is not empty
            for path in made:
                path.rmdir()
        raise


@contextlib.contextmanager
def _as_it_was(workdir: Path) -> Iterator[None]:
    """Leaves a folder as it was found where it is refused before there is any result, so that nothing is in the way."""
    before = {path.name for path in workdir.iterdir()}
    try:
        yield
    except UserError:
        results = (path for pattern in RESULTS for path in workdir.glob(pattern))
        if "config.json" not in before and not any(path.stat().st_size for path in results):
            with contextlib.suppress(OSError):
                for path in workdir.iterdir():
                    if path.name not in before:
                        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        raise


def _prepare(workdir: Path, config: dict[str, Any]) -> None:
    """Writes the config of a new run; refuses a folder that holds another run, or anything but a run."""
    path = workdir / "config.json"
    if not os.path.lexists(path):
        own = (lock.NAME, ".config.json.")  # the latter: of a run that was killed before its first line
        others = sorted(p.name for p in workdir.iterdir() if not p.name.startswith(own))
        if others:
            raise UserError(f"{workdir} holds {others[0]!r} and no run; choose another --workdir")
        write_text(path, to_json(config, indent=1))
        return
    if _differing(workdir, config):
        write_text(path, to_json(config, indent=1))


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    """What makes two runs one: keys that were not there yet have their defaults; where numbers are told plays no part."""
    known = {}
    with contextlib.suppress(UserError):  # a study that is no longer there
        known = schema(study_module(config["study"]).run)
    defaults = {k: option.default for k, option in known.items() if option.default is not REQUIRED}
    found = {**json.loads(to_json(defaults)), **config}
    if isinstance(found.get("steps"), dict):
        steps = found["steps"].items()
        found["steps"] = {name: _compared(step) if isinstance(step, dict) else step for name, step in steps}
    return {k: v for k, v in found.items() if k not in TOLD}


def _differing(workdir: Path, config: dict[str, Any]) -> bool:
    """Whether a run goes on with another config, which only a chain may; refuses another run's folder."""
    path = workdir / "config.json"
    old = read_json(path)
    if not isinstance(old, dict) or not isinstance(old.get("study"), str):
        raise UserError(f"{path} is no run's, or was damaged; choose another --workdir")
    check_format(old, f"the run in {workdir}")
    old, new = _compared(old), _compared(config)
    differing = [
        f"{k} ({old.get(k, 'absent')!r} there, {new.get(k, 'absent')!r} now)"
        for k in sorted(old.keys() | new.keys())
        if old.get(k) != new.get(k)
    ]
    # A chain that has not finished may go on with other steps: each step's own folder is guarded.
    growing = config["study"] == "chain" == old["study"] and not (workdir / "results.json").exists()
    if differing and not growing:
        raise UserError(
            f"{workdir} holds a run with another config: {', '.join(differing)}; "
            "choose another --workdir, or delete that one"
        )
    return bool(differing)


def execute(study: Callable[..., dict[str, Any]], name: str, config: dict[str, Any], run: Run) -> dict[str, Any]:
    """Runs a study in `run.workdir`, or says that it is done.

    A finished run is returned as it is; an unfinished one goes on; a workdir of another config is refused with the
    differing keys named. What is refused before there is any result leaves the folder as it was.

    Raises:
      UserError: the workdir cannot be written, holds another run or other files, or another process is at work there.
    """
    config = json.loads(to_json({"format": FORMAT, "study": absolute(name), **config}))
    if not run.writes:  # the first process prepares, and writes
        _find(run.workdir, hosts.first(str))  # what the first process says; `str` is not called
        hosts.barrier()
        return _executed(study, config, run)
    with _made(run.workdir), lock.held(run.workdir), _as_it_was(run.workdir):
        _prepare(run.workdir, config)
        hosts.first(lambda: lock.holder(run.workdir))
        hosts.barrier()  # the others have found the folder
        return _executed(study, config, run)


def _find(workdir: Path, holder: str) -> None:
    """Waits until a folder is seen that another process holds.

    Raises:
      UserError: what is there is not that folder.
    """
    until = time.monotonic() + FOUND_WITHIN
    while lock.holder(workdir) != holder:
        if time.monotonic() > until:
            raise UserError(
                f"workdir {workdir} of process {jax.process_index()} on {socket.gethostname()} is not the folder of that "
                f"name that is held by {holder}: all processes need one that they share"
            )
        time.sleep(0.1)


def _executed(study: Callable[..., dict[str, Any]], config: dict[str, Any], run: Run) -> dict[str, Any]:
    results = run.workdir / "results.json"
    if hosts.first(lambda: "finished" if os.path.lexists(results) else ""):
        run.say(f"{run.workdir}: already finished; delete it to run again")
        return read_record(run.workdir)._asdict()
    started = time.time()
    try:
        found = study(run=run, **bind(study, config))
    finally:
        run.end_progress()
        run.close_loggers()
    record = {
        "format": FORMAT,
        "study": config["study"],
        "config": config,
        "results": {**found, "notes": list(dict.fromkeys(run.notes))} if run.notes else found,
        "seconds": round(time.time() - started, 2),
        "environment": environment(),
        "rows": len(read_rows(run.workdir)) if run.writes else None,
    }
    if run.writes:
        write_text(results, to_json(record, indent=1))
    hosts.barrier()
    return record
