"""Finished runs as data: results and rows, by study."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ncjax.core.errors import UserError
from ncjax.core.files import read_json
from ncjax.runs.files import read_record
from ncjax.runs.rows import read_rows


class Finished(NamedTuple):
    """One finished run."""

    name: str  # its folder, relative to the common parent: unique on the page
    study: str
    config: dict[str, Any]
    results: dict[str, Any]
    rows: list[dict[str, Any]]
    seconds: float
    environment: dict[str, Any]
    folder: Path


def _folders(workdir: Path) -> list[Path]:
    record = read_record(workdir)
    if record.study != "chain":
        return [workdir]
    steps = record.results.get("steps")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
        raise UserError(f"{workdir / 'results.json'} does not name the steps of the chain; it may be damaged")
    return [workdir / step for step in steps]


def collect(workdirs: Sequence[str | Path]) -> list[Finished]:
    """The runs in `workdirs`, chains opened into their steps.

    Raises:
      UserError: a folder holds no finished run, or its files are damaged.
    """
    folders = [folder for workdir in workdirs for folder in _folders(Path(workdir))]
    parent = Path(os.path.commonpath([f.resolve().parent for f in folders]))
    found = []
    for folder in folders:
        record, rows = read_record(folder), read_rows(folder)
        if record.rows is not None and len(rows) != record.rows:
            raise UserError(f"{folder / 'metrics.jsonl'} holds {len(rows)} rows of the {record.rows} that the run wrote")
        found.append(
            Finished(
                name=str(folder.resolve().relative_to(parent)),
                study=record.study,
                config=record.config,
                results=record.results,
                rows=rows,
                seconds=record.seconds,
                environment=record.environment,
                folder=folder,
            )
        )
    return found


def archived(path: str | Path) -> list[Finished]:
    """The runs of a record: a folder that `--archive` wrote, or a JSON file of a run's results. They have no rows.

    Raises:
      UserError: no record there, or a damaged one.
    """
    file = Path(path) / "results.json" if Path(path).is_dir() else Path(path)
    found = read_json(file)
    records = found if isinstance(found, list) else [found]
    keys = ("study", "config", "results", "seconds", "environment")
    for record in records:
        if not isinstance(record, dict) or any(key not in record for key in keys):
            raise UserError(f"{file} is no record of runs: each has {', '.join(keys)}")
    return [
        Finished(name=r.get("name", file.stem), rows=[], folder=file.parent, **{key: r[key] for key in keys})
        for r in records
    ]


def series(run: Finished, split: str, layer: str, metric: str) -> tuple[list[int], list[float]]:
    """Epochs and values of one metric of a run, over its curve: the chosen epoch, measured again, is no part of that."""
    points = [
        (r["epoch"], r["value"])
        for r in run.rows
        if r["phase"] != "chosen"
        and (r["split"], r["layer"], r["metric"]) == (split, layer, metric)
        and r["value"] is not None
    ]
    return [e for e, _ in points], [v for _, v in points]
