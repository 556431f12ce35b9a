"""Rows of metrics.jsonl: one number each."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ncjax.core.errors import UserError
from ncjax.core.files import read_text

ROW_KEYS = ("epoch", "phase", "split", "layer", "metric", "value")


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or row.keys() != set(ROW_KEYS):
        return False
    value, epoch = row["value"], row["epoch"]
    words = all(isinstance(row[key], str) for key in ROW_KEYS[1:5])
    numbers = type(epoch) is int and (value is None or (isinstance(value, int | float) and not isinstance(value, bool)))
    return words and numbers


def read_rows(workdir: str | Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, none where there is no such file; a last line that a kill cut short is left out.

    Raises:
      UserError: the file cannot be read, or holds a line that is no row; the line is named.
    """
    path = Path(workdir) / "metrics.jsonl"
    lines = read_text(path).split("\n") if os.path.lexists(path) else []
    rows, whole = [], len(lines) - 1  # what follows the last line break is nothing, or was cut short
    for number, line in enumerate(lines[:whole], 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not _is_row(row):
            raise UserError(f"{path}, line {number} is no row of {', '.join(ROW_KEYS)}; the file was damaged")
        rows.append(row)
    return rows


def summary(workdir: str | Path, epoch: int) -> dict[str, dict[str, dict[str, float | None]]]:
    """The rows of one epoch as {split: {layer: {metric: value}}}."""
    out: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in read_rows(workdir):
        if row["epoch"] == epoch:
            out.setdefault(row["split"], {}).setdefault(row["layer"], {})[row["metric"]] = row["value"]
    return out
