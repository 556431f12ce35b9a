"""Rows of metrics.jsonl: one number each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ncjax.core.errors import UserError

ROW_KEYS = ("epoch", "phase", "split", "layer", "metric", "value")


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
