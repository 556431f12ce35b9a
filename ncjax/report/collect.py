"""Finished runs as data: results and rows, by study."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ncjax.runs.files import check_format, read_json
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


def _record(workdir: Path) -> dict[str, Any]:
    path = workdir / "results.json"
    record = read_json(path)
    check_format(record, str(path))
    return record


def _folders(workdir: Path) -> list[Path]:
    record = _record(workdir)
    if record.get("study") == "chain":
        return [workdir / step for step in record["results"]["steps"]]
    return [workdir]


def collect(workdirs: Sequence[str | Path]) -> list[Finished]:
    """The runs in `workdirs`, chains opened into their steps.

    Raises:
      UserError: a folder holds no finished run, or its files are damaged.
    """
    folders = [folder for workdir in workdirs for folder in _folders(Path(workdir))]
    parent = Path(os.path.commonpath([f.resolve().parent for f in folders]))
    found = []
    for folder in folders:
        record = _record(folder)
        found.append(
            Finished(
                str(folder.resolve().relative_to(parent)),
                record["study"],
                record["config"],
                record["results"],
                read_rows(folder),
                record["seconds"],
                record["environment"],
            )
        )
    return found


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
