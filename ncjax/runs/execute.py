"""A study in a working directory: begun, gone on with, finished, or refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ncjax.core.errors import UserError
from ncjax.core.options import bind
from ncjax.core.resolve import absolute
from ncjax.runs.environment import environment
from ncjax.runs.files import FORMAT, check_format, read_json, write_text
from ncjax.runs.run import Run


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
        check_format(old, f"the run in {workdir}")
        differing = [
            f"{k} ({old.get(k, 'absent')!r} there, {config.get(k, 'absent')!r} now)"
            for k in sorted(old.keys() | config.keys())
            if old.get(k) != config.get(k)
        ]
        # A chain that has not finished may go on with other steps: each step's own folder is guarded.
        growing = config["study"] == "chain" and not (workdir / "results.json").exists()
        if differing and growing:
            write_text(path, json.dumps(config, indent=1))
        elif differing:
            raise UserError(
                f"{workdir} holds a run with another config: {', '.join(differing)}; "
                "choose another --workdir, or delete that one"
            )
    elif any(p.name != "report.html" for p in workdir.iterdir()):
        raise UserError(f"{workdir} is not empty and holds no run; choose another --workdir")
    else:
        write_text(path, json.dumps(config, indent=1))


def execute(study: Callable[..., dict[str, Any]], name: str, config: dict[str, Any], run: Run) -> dict[str, Any]:
    """Runs a study in `run.workdir`, or says that it is done.

    A finished run is returned as it is; an unfinished one goes on; a workdir of another config is refused with the
    differing keys named.

    Raises:
      UserError: the workdir cannot be written, or holds another run or other files.
    """
    config = json.loads(json.dumps({"format": FORMAT, "study": absolute(name), **config}))
    _prepare(run.workdir, config)
    results = run.workdir / "results.json"
    if results.exists():
        run.say(f"{run.workdir}: already finished; delete it to run again")
        record = read_json(results)
        check_format(record, str(results))
        return record
    started = time.time()
    try:
        found = study(run=run, **bind(study, config))
    except UserError:
        # Nothing was computed: leave no config behind that would stand in the way of the corrected command.
        if run.writes and {p.name for p in run.workdir.iterdir()} <= {"config.json"}:
            (run.workdir / "config.json").unlink()
            run.workdir.rmdir()
        raise
    record = {
        "format": FORMAT,
        "study": config["study"],
        "config": config,
        "results": found,
        "seconds": round(time.time() - started, 2),
        "environment": environment(),
    }
    if run.writes:
        write_text(results, json.dumps(record, indent=1))
    return record
